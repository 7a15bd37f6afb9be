"""Runs and their event log while Redis is away."""

from __future__ import annotations

import asyncio
import os
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from listening import free_port
from worker_process import WorkerProcess, answer, context, request

from serve_app.config import RedisSettings, RunSettings
from serve_app.deployments.embedded_stores import EmbeddedStores, choose_ports
from serve_app.errors import StoreUnavailable
from serve_app.resilience.tasks import cancel_and_wait
from serve_app.runs import worker
from serve_app.runs.event_log import RunEventLog
from serve_app.runs.failover import FailoverAgent
from serve_app.stores.availability import RedisAvailability
from serve_app.stores.redis import create_redis_client
from serve_app.values import Answer, Token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from redis.asyncio import Redis

    from serve_app.runs.run import Run


SOON_S = 0.3
"""A Redis that is away is waited for no longer: these tests show what is done then."""


async def talk(run: Run) -> Answer:
    """A turn that goes on for a second and a half."""
    for number in range(30):
        run.stream(Token(text=f"{number} "))
        await asyncio.sleep(0.05)
    run.exchange = run.context.run_id
    return answer(run)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[EmbeddedStores]:
    stores = EmbeddedStores(tmp_path, choose_ports(tmp_path), redis=True, milvus=False)
    stores.start()
    yield stores
    stores.stop()


@pytest.fixture
async def own(stores: EmbeddedStores, tmp_path: Path) -> AsyncIterator[Redis]:
    """A Redis of this test's own."""
    client = create_redis_client(RedisSettings(), f"redis://127.0.0.1:{choose_ports(tmp_path).redis}/0")
    yield client
    await client.aclose()


@pytest.fixture
async def nowhere() -> AsyncIterator[Redis]:
    """A client of a Redis that is not there."""
    client = create_redis_client(RedisSettings(), f"redis://127.0.0.1:{free_port()}/0")
    yield client
    await client.aclose()


async def test_runs_and_their_readers_outlast_a_restart_of_redis(own: Redis, stores: EmbeddedStores) -> None:
    process, reader = WorkerProcess(own, talk), RunEventLog(own, RunSettings())
    reading = asyncio.create_task(reader.read_forever())
    contexts = [context(f"s{number}") for number in range(20)]
    for each in contexts:
        await reader.claim(each, request(each.session_id), None)

    async def read(number: int) -> list[int]:
        return [event.id async for event in reader.events(contexts[number], contexts[number].run_id)]

    async def killed() -> None:
        await asyncio.sleep(0.5)
        os.kill(stores.pids()["redis"] or 0, signal.SIGKILL)

    followed, read_ids, _ = await asyncio.gather(
        asyncio.gather(*(process.events(each, request(each.session_id)) for each in contexts)),
        asyncio.gather(*(read(number) for number in range(20))),
        killed(),
    )
    assert [events[-1].name for events in followed] == ["answer"] * 20
    assert read_ids == [[event.id for event in events] for events in followed]
    assert {run.adoptions for run in [await reader.run(each, each.run_id) for each in contexts]} == {0}
    for each in contexts:
        assert await own.lrange(f"serve_app:session:{{default:{each.session_id}}}:exchanges", 0, -1) == [each.run_id]
    await process.die()
    await cancel_and_wait(reading)


async def test_a_long_turn_is_followed_to_its_end_while_redis_is_away(
    nowhere: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "FOLLOW_S", 0.5)
    process = WorkerProcess(nowhere, talk, max_wait_s=SOON_S)
    log = RunEventLog(nowhere, RunSettings(), availability=RedisAvailability(SOON_S))
    follower = FailoverAgent(SimpleNamespace(turn=process.worker.follow), log)  # type: ignore[arg-type]
    events = [event async for event in follower.turn(context(), request())]
    assert isinstance(events[-1].data, Answer)
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    await process.die()


async def test_a_long_turn_is_followed_though_redis_goes_away_under_it(
    own: Redis, stores: EmbeddedStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "FOLLOW_S", 0.5)
    process = WorkerProcess(own, talk, max_wait_s=SOON_S)
    log = RunEventLog(own, RunSettings(), availability=RedisAvailability(SOON_S))
    follower = FailoverAgent(SimpleNamespace(turn=process.worker.follow), log)  # type: ignore[arg-type]
    events = []
    async for event in follower.turn(context(), request()):
        if not events:
            await asyncio.to_thread(stores.stop)
        events.append(event)
    assert isinstance(events[-1].data, Answer)
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    await process.die()


async def test_a_run_that_begins_while_redis_is_away_is_answered_and_makes_no_effect(nowhere: Redis) -> None:
    reserved: list[str] = []

    async def work(run: Run) -> Answer:
        try:
            await run.journal_effect(0, 0)
        except StoreUnavailable:
            reserved.append("refused")
        return answer(run)

    process = WorkerProcess(nowhere, work, max_wait_s=SOON_S)
    *published, last = await process.events(context(), request())
    assert [event.id for event in [*published, last]] == list(range(1, len(published) + 2))
    assert isinstance(last.data, Answer)
    assert reserved == ["refused"]
    *_, last = await process.events(context("t"), request("t"))
    assert isinstance(last.data, Answer)
    assert process.worker._services.writer.availability.is_away  # what one has waited for, the next does not
    await process.die()


async def test_an_answer_outlives_redis_and_is_remembered_when_it_is_back(
    own: Redis, stores: EmbeddedStores, tmp_path: Path
) -> None:
    turn_context = context()

    async def work(run: Run) -> Answer:
        await asyncio.to_thread(stores.stop)
        run.exchange = "said"
        return answer(run)

    process = WorkerProcess(own, work, max_wait_s=SOON_S)
    *_, last = await process.events(turn_context, request())
    assert isinstance(last.data, Answer)
    assert (last.data.status, last.data.degraded) == ("degraded", ["memory"])
    again = EmbeddedStores(tmp_path, choose_ports(tmp_path), redis=True, milvus=False)
    await asyncio.to_thread(again.start)
    try:
        async with asyncio.timeout(2):
            while not await own.exists("serve_app:session:{default:s}:exchanges"):  # noqa: ASYNC110 - a process is waited for
                await asyncio.sleep(0.02)
        assert (await RunEventLog(own, RunSettings()).run(turn_context, turn_context.run_id)).answer == last.data
        await process.die()
    finally:
        await asyncio.to_thread(again.stop)


async def test_a_log_that_cannot_be_read_says_so(nowhere: Redis) -> None:
    reader = RunEventLog(nowhere, RunSettings(), availability=RedisAvailability(SOON_S))
    turn_context = context()
    for asking in (
        reader.run(turn_context, "r"),
        reader.cancel(turn_context, "r"),
        reader.claim(turn_context, request(), "k"),
    ):
        with pytest.raises(StoreUnavailable):
            await asking
    with pytest.raises(StoreUnavailable):
        await anext(reader.events(turn_context, "r"))
