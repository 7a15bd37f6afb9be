"""Refused turns are counted by their reason, logged with tenant and request id, and say why in their body."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from http_fakes import answer
from http_service import Service, running

from serve_app.config import AccessSettings, AdmissionSettings
from serve_app.errors import (
    AgentUnavailable,
    DeadlineExceeded,
    Internal,
    ModelUnavailable,
    Overloaded,
    RateLimited,
    StoreUnavailable,
)
from serve_app.http.admission import AdmissionController
from serve_app.http.auth import Authenticator
from serve_app.http.middleware import telemetry
from serve_app.http.middleware.telemetry import RefusalSampler
from serve_app.observability.metric_catalogue import TURNS_REFUSED
from serve_app.values import Caller, Failed, Failure, Metering, TenantLimits

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from serve_app.http.dependencies import Services
    from serve_app.values import Context, RunLogLine

TURN = {"user_input": "Hello", "session_id": "s1"}
JSON = {"Content-Type": "application/json"}
KEY = {"Authorization": "Bearer blues-key"}


class OneKey:
    """Knows one key, of the tenant `blue`."""

    def find_caller(self, key: str) -> Caller | None:
        return Caller(tenant="blue", key_id="k", scopes=frozenset({"chat"})) if key == "blues-key" else None

    def tenant_limits(self, tenant: str) -> TenantLimits:
        return TenantLimits()

    async def take_turn(self, caller: Caller) -> Metering | None:
        raise RateLimited("This tenant has used up its turns per minute", 7)


class FakeRequestLog:
    """What is noted of requests."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, RunLogLine]] = []
        self.runs: list[tuple[str, str]] = []

    def add_line(self, tenant: str, request_id: str, line: RunLogLine) -> None:
        self.lines.append((tenant, request_id, line))

    def link_run(self, context: Context) -> None:
        self.runs.append((context.request_id, context.run_id))


class Refusing(Service):
    """A service whose turns can be refused in every way."""

    def __init__(self, *, keys: bool = False, limited: bool = False, **admission: float) -> None:
        super().__init__()
        self.request_logs = FakeRequestLog()
        self.limited = limited
        self.admission = AdmissionController(AdmissionSettings(**admission), OneKey()) if admission else None
        self.authenticator = Authenticator.of(OneKey(), AccessSettings()) if keys else None

    @property
    def services(self) -> Services:
        limiter: Any = OneKey() if self.limited else None
        return replace(super().services, admission=self.admission, limiter=limiter)

    async def refused(self, **request: Any) -> tuple[str, str]:
        """Status and reason of a turn that is refused."""
        headers = {"X-Request-Id": "q1", **request.pop("headers", {})}
        response = await self.client.post("/agent/chat", **{"json": TURN, **request}, headers=headers)
        error = response.json()["error"]
        assert error["request_id"] == "q1"
        return response.status_code, error["reason"]


@pytest.fixture
def logged() -> Iterator[list[logging.LogRecord]]:
    """The events `turn_refused`."""
    records: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger, handler = telemetry.logger, Handler()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(before)


CASES: list[tuple[str, dict[str, Any], dict[str, Any], Exception | None, int, str]] = [
    ("rate_limited", {"limited": True}, {}, None, 429, "default"),
    ("rate_limited", {"limited": True, "keys": True}, {"headers": KEY}, None, 429, "blue"),
    ("unauthenticated", {"keys": True}, {}, None, 401, ""),
    ("unauthenticated", {"keys": True}, {"headers": {"Authorization": "Bearer wrong"}}, None, 401, ""),
    ("invalid", {}, {"json": {"session_id": "s1"}}, None, 422, "default"),
    (
        "invalid",
        {},
        {"content": b"{", "json": None, "headers": {"Content-Type": "application/json"}},
        None,
        400,
        "default",
    ),
    ("invalid", {}, {"content": b"x" * 10_000, "json": None}, None, 413, "default"),
    ("invalid", {"keys": True}, {"headers": {**KEY, "X-Long": "x" * 20_000}}, None, 431, ""),
    ("agents_full", {}, {}, Overloaded("full", 1, "agents_full"), 503, "default"),
    ("backpressure", {}, {}, Overloaded("full", 1, "backpressure"), 503, "default"),
    ("store_unavailable", {}, {}, StoreUnavailable("away"), 503, "default"),
    ("agent_unavailable", {}, {}, AgentUnavailable("away"), 503, "default"),
    ("internal", {}, {}, Internal("a fault"), 500, "default"),
]


async def test_a_refused_turn_is_counted_logged_and_kept_with_its_reason(logged: list[logging.LogRecord]) -> None:
    wrong = []
    for reason, setup, request, error, status, tenant in CASES:
        logged.clear()
        async with running(Refusing(**setup)) as service:
            service.agent.script = [error or answer()]
            found = await service.refused(**{key: value for key, value in request.items() if value is not None})
        events = [(record.getMessage(), record.reason, record.tenant or "", record.request_id) for record in logged]
        rows = [(*ids, line.event, line.fields["reason"]) for *ids, line in service.request_logs.lines]
        expected = ("turn_refused", reason, tenant, "q1")
        if (
            found != (status, reason)
            or events != [expected]
            or rows != [(tenant, "q1", "turn_refused", reason)]
            or service.metrics.of(TURNS_REFUSED) != {reason: 1}
        ):
            wrong.append((reason, status, found, events, rows, service.metrics.of(TURNS_REFUSED)))
    assert wrong == []


async def test_a_turn_without_room_says_whether_it_had_waited(logged: list[logging.LogRecord]) -> None:
    for reason, admission in (
        ("queue_full", {"max_waiting": 0}),
        ("wait_expired", {"max_waiting": 9, "max_wait_s": 0.1}),
    ):
        logged.clear()
        async with running(Refusing(max_turns=1, **admission)) as service:
            service.agent.script = [0.5, answer()]
            first = asyncio.create_task(service.client.post("/agent/chat", json=TURN))
            while not service.admission._queue.served:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.005)
            assert await service.refused() == (503, reason), reason
            assert (await first).status_code == 200
        assert [record.reason for record in logged] == [reason]
        assert service.metrics.of(TURNS_REFUSED) == {reason: 1}


async def test_a_turn_that_has_a_run_is_no_refusal_whatever_becomes_of_it(logged: list[logging.LogRecord]) -> None:
    failed = Failed(error=Failure.of(ModelUnavailable("down"), "q1"))
    for step in (failed, DeadlineExceeded("late"), answer()):
        async with running(Refusing()) as service:
            service.agent.script = [step]
            response = await service.client.post("/agent/chat", json=TURN, headers={"X-Request-Id": "q1"})
            assert (await service.client.post("/nowhere")).status_code == 404
        assert response.status_code in {200, 503, 504}
        [(request_id, run_id)] = service.request_logs.runs
        assert (request_id, run_id) == ("q1", service.agent.received[-1][0].run_id)
        assert (logged, service.request_logs.lines, service.metrics.of(TURNS_REFUSED)) == ([], [], {})


async def test_openai_s_body_has_the_reason_too() -> None:
    async with running(Refusing(limited=True)) as service:
        body = {"model": "serve_app", "messages": [{"role": "user", "content": "Hello"}]}
        response: httpx.Response = await service.client.post("/v1/chat/completions", json=body)
        assert (response.status_code, response.json()["error"]["reason"]) == (429, "rate_limited")


async def test_in_a_flood_all_are_counted_and_a_sample_is_logged(logged: list[logging.LogRecord]) -> None:
    async with running(Refusing(limited=True)) as service:
        for _ in range(40):
            await service.refused()
        assert service.metrics.of(TURNS_REFUSED) == {"rate_limited": 40}
    assert 10 <= len(logged) < 30
    assert len(service.request_logs.lines) == len(logged)


def test_a_sample_is_one_a_second_for_each_key_and_says_how_many_it_left_out() -> None:
    now = [0.0]
    sampler = RefusalSampler(lambda: now[0])
    assert [sampler.sample("a") for _ in range(15)] == [0] * 10 + [None] * 5
    assert sampler.sample("b") == 0
    now[0] = 1.0
    assert [sampler.sample("a") for _ in range(3)] == [5, None, None]
    now[0] = 2.0
    assert sampler.sample("a") == 2
