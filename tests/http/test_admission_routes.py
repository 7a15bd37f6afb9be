"""Turns without room are refused at once with a time to retry, and every turn frees its place."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import pytest
import uvicorn
from http_fakes import answer
from http_service import NO_REDIS, Service, empty, running

from serve_app.config import AdmissionSettings, HttpSettings, LimitSettings, RedisSettings
from serve_app.errors import Overloaded, RateLimited
from serve_app.http.admission import AdmissionController
from serve_app.http.app import create_api
from serve_app.observability.metric_catalogue import RESPONSES
from serve_app.stores.rate_limiter import RateLimiter
from serve_app.stores.redis import create_redis_client
from serve_app.values import Caller, Metering, RateLimits, RunStarted, TenantLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from serve_app.http.dependencies import Services

HELLO = {"user_input": "Hello", "session_id": "s1"}


class Alike:
    """All tenants are."""

    def tenant_limits(self, tenant: str) -> TenantLimits:
        return TenantLimits()


class Scripted:
    """Says what it is given."""

    def __init__(self) -> None:
        self.says: Metering | Exception | None = None
        self.callers: list[Caller] = []

    async def take_turn(self, caller: Caller) -> Metering | None:
        self.callers.append(caller)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


class Guarded(Service):
    """A service with places for so many turns, and a limiter."""

    def __init__(self, redis_url: str = NO_REDIS, **admission: float) -> None:
        super().__init__(redis_url)
        self.admission = AdmissionController(AdmissionSettings(**admission), Alike(), self.metrics)
        self.limiter = Scripted()

    @property
    def services(self) -> Services:
        return replace(super().services, admission=self.admission, limiter=self.limiter)

    @property
    def free(self) -> bool:
        queue = self.admission._queue
        return (queue.served, queue.waiting, self.admission._waiting) == (0, 0, {})

    async def until_free(self) -> None:
        async with asyncio.timeout(5):
            while not self.free:  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0.005)

    async def until(self, served: int, waiting: int) -> None:
        async with asyncio.timeout(5):
            while (self.admission._queue.served, self.admission._queue.waiting) != (served, waiting):  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@asynccontextmanager
async def guarded(redis_url: str = NO_REDIS, **admission: float) -> AsyncIterator[Guarded]:
    async with running(Guarded(redis_url, **admission)) as service:
        yield service


def _retry_after_s(response: httpx.Response, status: int, code: str) -> int:
    """The seconds after which to come back."""
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["retryable"]) == (status, code, True)
    assert error["request_id"] == response.headers["X-Request-Id"]
    return int(response.headers["Retry-After"])


async def test_a_turn_over_the_bound_is_refused_at_once_and_told_when_to_come_back():
    async with guarded(max_turns=1, max_waiting=0) as service:
        service.agent.script = [0.5, answer()]
        first = asyncio.create_task(service.client.post("/agent/chat", json=HELLO))
        await service.until(1, 0)
        refused = await service.client.post("/agent/chat", json=HELLO)
        assert not first.done(), "refused at once"
        assert 1 <= _retry_after_s(refused, 503, "overloaded") <= 60
        assert refused.json()["error"]["reason"] == "queue_full"
        assert (await first).status_code == 200
        assert service.free
        assert service.agent.calls == 1
        counted = service.metrics.of(RESPONSES)
        assert counted[(("route", "/agent/chat"), ("status", "503"), ("code", "overloaded"))] == 1
        assert len(service.limiter.callers) == 1, "what there is no room for costs no allowance"


async def test_it_is_refused_before_its_body_was_sent():
    async with guarded(max_turns=1, max_waiting=0) as service:
        service.agent.script = [0.5, answer()]
        first = asyncio.create_task(service.client.post("/agent/chat", json=HELLO))
        await service.until(1, 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"POST /agent/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n{")
        assert (await asyncio.wait_for(reader.readline(), 0.3)).startswith(b"HTTP/1.1 503")
        writer.close()
        await first


async def test_a_client_that_sends_its_body_slowly_holds_no_place():
    async with guarded(max_turns=1, max_waiting=0) as service:
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"POST /agent/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(0.05)
        assert (await service.client.post("/agent/chat", json=HELLO)).status_code == 200
        writer.close()


async def test_turns_wait_for_a_place_and_all_are_answered():
    async with guarded(max_turns=2, max_waiting=20) as service:
        service.agent.script = [0.05, answer()]
        answers = await asyncio.gather(*(service.client.post("/agent/chat", json=HELLO) for _ in range(10)))
        assert [each.status_code for each in answers] == [200] * 10
        assert service.free


async def test_one_that_waits_too_long_is_refused_and_the_places_stay_right():
    async with guarded(max_turns=1, max_waiting=9, max_wait_s=0.1) as service:
        service.agent.script = [0.4, answer()]
        first = asyncio.create_task(service.client.post("/agent/chat", json=HELLO))
        await service.until(1, 0)
        refused = await service.client.post("/agent/chat", json=HELLO)
        _retry_after_s(refused, 503, "overloaded")
        assert refused.json()["error"]["reason"] == "wait_expired"
        assert (await first).status_code == 200
        assert service.free


async def test_a_client_that_leaves_while_it_waits_leaves_the_queue_and_no_trace(caplog):
    async with guarded(max_turns=1, max_waiting=9) as service:
        service.agent.script = [0.4, answer()]
        first = asyncio.create_task(service.client.post("/agent/chat", json=HELLO))
        await service.until(1, 0)
        second = asyncio.create_task(service.client.post("/agent/chat", json=HELLO))
        await service.until(1, 1)
        second.cancel()
        await service.until(1, 0)
        assert (await first).status_code == 200
        assert service.agent.calls == 1
        assert caplog.records == []
        counted = service.metrics.of(RESPONSES)
        assert counted[(("route", "/agent/chat"), ("status", "499"), ("code", "client_left"))] == 1


async def test_a_stream_holds_its_place_to_its_end_and_one_that_is_left_gives_it_back():
    async with guarded(max_turns=1, max_waiting=0) as service:
        service.agent.script = [RunStarted(run_id=""), 0.3, answer()]
        async with service.client.stream("POST", "/agent/chat", json={**HELLO, "stream": True}) as stream:
            assert stream.status_code == 200
            _retry_after_s(await service.client.post("/agent/chat", json=HELLO), 503, "overloaded")
            assert b"event: answer" in await stream.aread()
        await service.until_free()
        service.agent.script = [RunStarted(run_id=""), 5.0, answer()]
        dropped = asyncio.create_task(service.client.post("/agent/chat", json={**HELLO, "stream": True}))
        await service.until(1, 0)
        dropped.cancel()
        await service.until_free()


async def test_a_run_in_the_background_holds_a_place_only_until_it_has_begun(api_redis_url):
    async with guarded(empty(api_redis_url), max_turns=1, max_waiting=0) as service:
        service.agent.script = [0.3, answer()]
        for _ in range(3):
            begun = await service.client.post("/agent/chat", json=HELLO, headers={"Prefer": "respond-async"})
            assert begun.status_code == 202
        assert service.free


@pytest.mark.parametrize("fails", [RuntimeError("unforeseen"), Overloaded("the agents are full"), KeyError()])
async def test_whatever_a_turn_fails_with_its_place_is_given_back(fails):
    async with guarded(max_turns=1, max_waiting=0) as service:
        service.agent.script = [fails]
        for _ in range(3):
            assert (await service.client.post("/agent/chat", json=HELLO)).status_code in {500, 503}
        assert (await service.client.post("/agent/chat", content=b"{")).status_code in {400, 415}
        assert service.free


async def test_only_turns_are_bounded():
    async with guarded(max_turns=1, max_waiting=0) as service:
        service.agent.script = [0.3, answer()]
        first = asyncio.create_task(service.client.post("/agent/chat", json=HELLO))
        await service.until(1, 0)
        service.limiter.says = RateLimited("no more", retry_after_s=3)
        assert (await service.client.get("/healthz")).status_code == 200
        assert (await service.client.get("/knowledge/documents")).status_code == 200
        assert (await service.client.get("/agent/chat")).status_code == 405
        await first


@pytest.mark.parametrize("path", ["/agent/chat%0A", "/v1/chat/completions%0A", "//agent/chat", "/agent/chat/"])
async def test_no_other_spelling_of_a_path_runs_a_turn_unbounded(path):
    async with guarded() as service:
        service.limiter.says = RateLimited("no more", retry_after_s=3)
        assert (await service.client.post(path, json=HELLO)).status_code in {404, 429}
        assert service.agent.calls == 0


async def test_whoever_has_used_up_its_allowance_is_told_to_the_second_when_there_is_more():
    async with guarded() as service:
        service.limiter.says = RateLimited("This key has used up its turns per minute", retry_after_s=11.2)
        refused = await service.client.post("/agent/chat", json=HELLO)
        assert _retry_after_s(refused, 429, "rate_limited") == 12
        assert service.agent.calls == 0
        assert service.free


async def test_what_a_turn_is_charged_to_goes_with_it_to_the_agent():
    async with guarded() as service:
        service.limiter.says = Metering(key_per_minute=5)
        await service.client.post("/agent/chat", json=HELLO)
        [(context, _)] = service.agent.received
        assert context.metering == Metering(key_per_minute=5)


@contextmanager
def _instance(redis_url: str, service: Service) -> Iterator[int]:
    """An ingress of its own, in a thread of its own; its port."""
    redis = create_redis_client(RedisSettings(), redis_url)
    limits = LimitSettings(tenant=RateLimits(turns_per_minute=50, turns_burst=50))
    parts = replace(
        service.services,
        limiter=RateLimiter(redis, limits, Alike()),
        admission=AdmissionController(AdmissionSettings(), Alike()),
    )
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    server = uvicorn.Server(uvicorn.Config(create_api(parts, HttpSettings(), 20), log_level="critical"))

    async def serve() -> None:
        await server.serve(sockets=[listener])
        await redis.aclose()

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(timeout=10)


async def test_of_two_hundred_at_once_over_two_ingresses_exactly_fifty_pass(redis, redis_url):
    with _instance(redis_url, Service()) as first, _instance(redis_url, Service()) as second:
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            urls = [f"http://127.0.0.1:{port}/agent/chat" for port in (first, second)] * 100
            begun = time.monotonic()
            answers = await asyncio.gather(*(client.post(url, json=HELLO) for url in urls))
    earned = int(
        (time.monotonic() - begun) * 50 / 60
    )  # on a busy machine they take longer than a turn takes to come free
    passed = [each for each in answers if each.status_code == 200]
    refused = [each for each in answers if each.status_code != 200]
    assert 50 <= len(passed) <= 50 + earned
    assert {_retry_after_s(each, 429, "rate_limited") for each in refused} <= {1, 2}
