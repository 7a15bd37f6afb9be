"""What became of a request is found by its id, tenant by tenant, bounded, and without delaying the request."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from tcp_proxy import proxied

from serve_app.config import RedisSettings
from serve_app.errors import NotFound
from serve_app.resilience.tasks import cancel_and_wait
from serve_app.stores import log_store
from serve_app.stores.log_store import UNKNOWN_TENANT, RequestLogStore, RunLogStore
from serve_app.stores.redis import create_redis_client
from serve_app.stores.redis_keys import RunKeys, refusals_key, request_key
from serve_app.values import Context, RequestLogLines, RunLogLine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

TTL_S = 60


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_store, "WRITE_EVERY_S", 0.01)


def context(tenant: str = "default", request_id: str = "q", run_id: str = "r") -> Context:
    return Context(request_id=request_id, run_id=run_id, session_id="s", tenant=tenant, deadline=0)


def refusal(number: int = 0) -> RunLogLine:
    at = f"2026-11-29T12:00:00.{number:03}+00:00"
    fields = {"reason": "queue_full", "number": number}
    return RunLogLine(ts=at, level="INFO", process="Ingress", event="turn_refused", fields=fields)


@asynccontextmanager
async def writing(redis: Redis) -> AsyncIterator[RequestLogStore]:
    store = RequestLogStore(redis, RunLogStore(redis, TTL_S), TTL_S)
    task = asyncio.create_task(store.write_forever())
    yield store
    await cancel_and_wait(task)


async def found(store: RequestLogStore, caller_context: Context, request_id: str = "q") -> RequestLogLines:
    async with asyncio.timeout(5):
        while True:
            try:
                return await store.read(caller_context, request_id)
            except NotFound:
                await asyncio.sleep(0.01)


async def test_a_request_leads_to_its_run_and_the_lines_of_it(redis: Redis) -> None:
    line = '{"ts": "2026-11-29T12:00:01.000+00:00", "level": "DEBUG", "event": "run_begun", "request_id": "q"}'
    await redis.xadd(RunKeys("default", "r").lines, {"line": line})
    async with writing(redis) as store:
        store.link_run(context())
        log = await found(store, context())
    assert (log.run_id, [each.event for each in log.lines]) == ("r", ["run_begun"])
    assert 0 < await redis.ttl(request_key("default", "q")) <= TTL_S


async def test_a_refused_request_has_its_line_and_no_run(redis: Redis) -> None:
    async with writing(redis) as store:
        store.link_run(context(run_id="withdrawn"))  # the agents refused the run, of which nothing is left
        store.add_line("default", "q", refusal())
        store.add_line("default", "another", refusal(1))
        assert await found(store, context()) == RequestLogLines(request_id="q", run_id=None, lines=(refusal(),))
    assert 0 < await redis.ttl(refusals_key("default")) <= TTL_S


async def test_tenants_read_their_own_and_operators_those_without_a_key_too(redis: Redis) -> None:
    async with writing(redis) as store:
        store.add_line("blue", "q", refusal())
        store.link_run(context("blue", "w"))
        store.add_line(UNKNOWN_TENANT, "nobody", refusal())
        assert (await found(store, context("blue"))).lines == (refusal(),)
        assert (await found(store, context(), "nobody")).lines == (refusal(),)
        for caller_context, request_id in (
            (context(), "q"),
            (context(), "w"),
            (context("red"), "q"),
            (context("blue"), "nobody"),
        ):
            with pytest.raises(NotFound):
                await store.read(caller_context, request_id)


async def test_the_latest_refusals_of_a_tenant_are_kept_and_one_that_nobody_can_read_is_left_out(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_store, "MAX_REFUSALS", 5)
    async with writing(redis) as store:
        for number in range(20):
            store.add_line("default", f"q{number}", refusal(number))
        assert (await found(store, context(), "q19")).lines == (refusal(19),)
        assert await redis.xlen(refusals_key("default")) == 5
        with pytest.raises(NotFound):
            await store.read(context(), "q14")
        await redis.xadd(refusals_key("default"), {"request": "odd", "line": "{"})
        with pytest.raises(NotFound):
            await store.read(context(), "odd")


async def test_while_redis_is_away_nobody_waits_and_what_was_dropped_is_logged(
    redis_url: str, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with proxied(redis_url) as proxy:
        client = create_redis_client(RedisSettings(timeout_s=0.1), f"redis://127.0.0.1:{proxy.port}/0")
        async with writing(client) as store:
            await proxy.refuse()
            store.add_line("default", "lost", refusal())
            async with asyncio.timeout(5):
                while store._pending:  # noqa: ASYNC110 - for want of an event
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            await proxy.listen()
            store.add_line("default", "q", refusal())
            assert (await found(RequestLogStore(redis, RunLogStore(redis, TTL_S), TTL_S), context())).lines
            async with asyncio.timeout(5):
                while not caplog.records:  # noqa: ASYNC110 - likewise
                    await asyncio.sleep(0.01)
        await client.aclose()
    [record] = [each for each in caplog.records if each.getMessage() == "request_log_dropped"]
    assert record.count == 1
