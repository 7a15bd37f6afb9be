"""The proxy itself refuses a flood of one key, and nobody else."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from serve_app.deployments.guards import guards
from serve_app.errors import ModelUnavailable, Overloaded, RateLimited
from serve_app.http.errors import error_response
from serve_app.http.middleware.headers import RequestIdMiddleware
from serve_app.http.middleware.load_shedding import CHECK_EVERY_S, MAX_SENDERS, WINDOW_S, LoadSheddingMiddleware
from serve_app.observability.metric_catalogue import REQUESTS_SHED
from serve_app.observability.metrics import InMemoryMetrics

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

CHAT = "/agent/chat"


@dataclass
class Behind:
    """An ingress that fails in one way, or answers; and the proxy before it."""

    fails: Exception | None = None
    calls: int = 0
    now: float = 0
    metrics: InMemoryMetrics = field(default_factory=InMemoryMetrics)

    def __post_init__(self) -> None:
        self.proxy = LoadSheddingMiddleware(RequestIdMiddleware(self.answer), self.metrics, lambda: self.now)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        if self.fails:
            await error_response(self.fails, scope)(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def ask(self, key: str = "a", path: str = CHAT, request_id: str = "q") -> tuple[int, dict[str, str], str]:
        messages: list[Message] = []

        async def send(message: Message) -> None:
            messages.append(message)

        headers = [(b"authorization", f"Bearer {key}".encode()), (b"x-request-id", request_id.encode())]
        scope = {"type": "http", "method": "POST", "path": path, "root_path": "", "headers": headers}
        await self.proxy(scope, None, send)  # type: ignore[arg-type]
        headers_sent = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        return messages[0]["status"], headers_sent, b"".join(each.get("body", b"") for each in messages[1:]).decode()


@pytest.mark.parametrize("fails", [Overloaded("full", retry_after_s=7), RateLimited("no more", retry_after_s=7)])
async def test_what_was_refused_is_refused_for_a_moment_without_being_asked_for(fails: Overloaded) -> None:
    behind = Behind(fails)
    status, headers, body = await behind.ask(request_id="first")
    again = await behind.ask(request_id="second")
    assert behind.calls == 1
    assert again[0] == status
    assert again[1] == {**headers, "x-request-id": "second", "content-length": str(len(again[2]))}
    assert again[1]["retry-after"] == "7"
    assert json.loads(again[2])["error"] == {**json.loads(body)["error"], "request_id": "second"}
    assert behind.metrics.of(REQUESTS_SHED) == {fails.code: 1}


async def test_when_there_is_room_again_twice_as_many_pass_in_each_window() -> None:
    behind = Behind(Overloaded("full"))
    await behind.ask()
    passed = []
    for _ in range(7):
        behind.fails, calls_before = None, behind.calls
        for _ in range(40):
            await behind.ask()
        passed.append(behind.calls - calls_before)
        behind.now += WINDOW_S
    assert passed == [0, 1, 2, 4, 8, 16, 40]


async def test_when_it_refuses_again_nothing_passes_for_a_window() -> None:
    behind = Behind(Overloaded("full"))
    passed = []
    for _ in range(6):
        calls_before = behind.calls
        for _ in range(5):
            await behind.ask()
        passed.append(behind.calls - calls_before)
        behind.now += WINDOW_S
    assert passed == [1] * 6


async def test_others_and_other_paths_are_asked_for() -> None:
    behind = Behind(Overloaded("full"))
    for key, path in (("a", CHAT), ("b", CHAT), ("a", "/v1/chat/completions")):
        await behind.ask(key, path)
    assert behind.calls == 3
    assert json.loads((await behind.ask("a", "/v1/chat/completions"))[2])["error"]["code"] == "overloaded"
    assert behind.calls == 3


@pytest.mark.parametrize("fails", [None, ModelUnavailable("no model")])
async def test_what_is_no_refusal_is_not_repeated(fails: Exception | None) -> None:
    behind = Behind(fails)
    for _ in range(3):
        await behind.ask()
    assert behind.calls == 3
    assert not behind.metrics.of(REQUESTS_SHED)


@pytest.mark.looptime
async def test_of_many_keys_only_so_many_are_remembered() -> None:
    behind = Behind(Overloaded("full"))
    for number in range(MAX_SENDERS + 5):
        await behind.ask(f"key{number}")
    assert len(behind.proxy._senders) == MAX_SENDERS
    behind.now += WINDOW_S + CHECK_EVERY_S
    await asyncio.sleep(CHECK_EVERY_S + 0.2)
    assert not behind.proxy._senders


async def test_serves_proxies_do_so() -> None:
    assert LoadSheddingMiddleware in [each.cls for each in guards()]
