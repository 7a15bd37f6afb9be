"""The log lines of a run are stored in order and bounded, and delay nobody."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from tcp_proxy import proxied

from serve_app.config import RedisSettings
from serve_app.errors import NotFound
from serve_app.observability.logs import JsonLogFormatter, RedactingFilter, RunLogHandler
from serve_app.observability.redaction import Redactor
from serve_app.resilience.tasks import cancel_and_wait
from serve_app.stores import log_store
from serve_app.stores.log_store import MAX_LINES, RunLogStore
from serve_app.stores.redis import create_redis_client
from serve_app.stores.redis_keys import RunKeys
from serve_app.values import Context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis.asyncio import Redis

    from serve_app.values import RunLogLine

CONTEXT = Context(request_id="q", run_id="x", session_id="s", deadline=0)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_store, "WRITE_EVERY_S", 0.01)


def tell(trail: RunLogHandler, event: str, at: float = 1, run_id: str = "r", **fields: object) -> None:
    made = {"name": "serve_app.x", "msg": event, "levelname": "INFO", "created": at, "run_id": run_id, **fields}
    trail.handle(logging.makeLogRecord(made))


@asynccontextmanager
async def process(redis: Redis, deployment: str) -> AsyncIterator[RunLogHandler]:
    trail = RunLogHandler(JsonLogFormatter({"deployment": deployment, "replica": "1"}), RedactingFilter(Redactor()))
    writing = asyncio.create_task(RunLogStore(redis, 60).write_forever(trail))
    yield trail
    await cancel_and_wait(writing)


async def lines(redis: Redis, many: int, run_id: str = "r", tenant: str = "default") -> tuple[RunLogLine, ...]:
    async with asyncio.timeout(5):
        while True:
            try:
                found = await RunLogStore(redis, 60).read(CONTEXT.model_copy(update={"tenant": tenant}), run_id)
            except NotFound:
                found = None
            if found and len(found.lines) >= many:
                return found.lines
            await asyncio.sleep(0.01)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - a counter, for want of an event
            await asyncio.sleep(0.01)


async def test_the_lines_of_all_processes_are_read_in_the_order_of_their_times(redis: Redis) -> None:
    async with process(redis, "Agent") as agent, process(redis, "Ingress") as ingress:
        tell(agent, "run_begun", 2, stream=True)
        await lines(redis, 1)
        tell(ingress, "turn_asked", 1)
        tell(agent, "run_ended", 3)
        tell(agent, "another", run_id="other")
        logged = await lines(redis, 3)
    assert [(line.process, line.event) for line in logged] == [
        ("Ingress 1", "turn_asked"),
        ("Agent 1", "run_begun"),
        ("Agent 1", "run_ended"),
    ]
    assert logged[1].fields == {"stream": True}
    assert 0 < await redis.ttl(RunKeys("default", "r").lines) <= 60


async def test_tenants_are_apart_and_a_run_that_nobody_knows_is_not_found(redis: Redis) -> None:
    async with process(redis, "Agent") as agent:
        tell(agent, "run_begun", tenant="blue")
        assert len(await lines(redis, 1, tenant="blue")) == 1
    with pytest.raises(NotFound):
        await RunLogStore(redis, 60).read(CONTEXT, "r")


async def test_a_run_that_tells_without_end_keeps_its_latest_lines(redis: Redis) -> None:
    async with process(redis, "Agent") as agent:
        for number in range(MAX_LINES + 50):
            tell(agent, "step", number, number=number)
        logged = await lines(redis, MAX_LINES)
    assert [line.fields["number"] for line in logged] == list(range(50, MAX_LINES + 50))


async def test_while_redis_is_away_lines_are_dropped_and_that_is_told_when_it_is_back(
    redis_url: str, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with proxied(redis_url) as proxy:
        client = create_redis_client(RedisSettings(timeout_s=0.1), f"redis://127.0.0.1:{proxy.port}/0")
        async with process(client, "Agent") as agent:
            await proxy.refuse()
            tell(agent, "lost")
            await until(lambda: agent.dropped == 1)
            await proxy.listen()
            tell(agent, "kept")
            assert [line.event for line in await lines(redis, 1)] == ["kept"]
            await until(lambda: agent.dropped == 0)
        await client.aclose()
    [record] = [each for each in caplog.records if each.getMessage() == "run_lines_dropped"]
    assert record.count == 1
