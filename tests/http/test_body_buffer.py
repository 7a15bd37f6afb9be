"""A replica gets a request only when its body is there."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from serve_app.deployments.guards import guards
from serve_app.http.middleware import body_limits
from serve_app.http.middleware.body_limits import BUFFER_BYTES, BodyBufferMiddleware

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send


class Behind:
    """What stands behind: keeps what it is given of each request, message by message."""

    def __init__(self) -> None:
        self.received: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while not self.received or self.received[-1].get("more_body"):
            self.received.append(await receive())


async def sent(behind: Behind, *pieces: Message | float, method: str = "POST") -> list[Message]:
    """What a client is answered that sends these, with pauses of so many seconds between them."""
    left, answered = iter(pieces), []

    async def receive() -> Message:
        for piece in left:
            if not isinstance(piece, float):
                return piece
            await asyncio.sleep(piece)
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: Message) -> None:
        answered.append(message)

    headers = [(b"content-length", b"99"), (b"x-request-id", b"q1")]
    scope = {"type": "http", "method": method, "path": "/agent/chat", "root_path": "", "headers": headers}
    await BodyBufferMiddleware(behind)(scope, receive, send)
    return answered


def piece(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_pieces_are_passed_on_as_one() -> None:
    behind = Behind()
    assert not await sent(behind, piece(b"a"), 0.05, piece(b"b"), piece(b"", more=False))
    assert behind.received == [piece(b"ab", more=False)]


async def test_a_large_body_is_passed_on_as_it_comes() -> None:
    behind = Behind()
    half = b"x" * (BUFFER_BYTES // 2)
    await sent(behind, piece(half), piece(half), piece(b"y"), piece(b"z", more=False))
    assert behind.received == [piece(half + half), piece(b"y"), piece(b"z", more=False)]


async def test_of_a_client_that_leaves_within_its_body_nothing_is_heard() -> None:
    behind = Behind()
    assert not await sent(behind, piece(b"a"), {"type": "http.disconnect"})
    assert not behind.received


async def test_a_body_that_does_not_come_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits, "BODY_TIMEOUT_S", 0.1)
    behind = Behind()
    start, *bodies = await sent(behind, piece(b"a"))
    assert not behind.received
    assert (start["status"], dict(start["headers"])[b"x-request-id"]) == (408, b"q1")
    error = json.loads(b"".join(each["body"] for each in bodies))["error"]
    assert (error["code"], error["request_id"]) == ("body_timeout", "q1")


@pytest.mark.parametrize("scope", [{"type": "http", "method": "GET"}, {"type": "websocket"}])
async def test_what_has_no_body_is_not_waited_for(scope: Scope) -> None:
    reached: list[Scope] = []

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope)

    await BodyBufferMiddleware(behind)(scope, None, None)  # type: ignore[arg-type]
    assert reached == [scope]


async def test_serves_proxies_wait_too() -> None:
    assert BodyBufferMiddleware in [each.cls for each in guards()]
