"""A withdrawn run leaves nothing behind, unless a process has it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from worker_process import answer, context, request

from serve_app.errors import Overloaded
from serve_app.runs.event_log import WITHDRAWN_TTL_S
from serve_app.stores.redis_keys import UNFINISHED_RUNS, RunKeys
from serve_app.values import Claim, Failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis
    from worker_process import WorkerProcess

    from serve_app.runs.event_log import RunEventLog
    from serve_app.runs.run import Run
    from serve_app.values import Answer

    Start = Callable[..., WorkerProcess]

FULL = Overloaded("Too many turns are running", retry_after_s=7)


async def test_a_run_that_is_withdrawn_is_not_run(start: Start, log: RunEventLog, redis: Redis) -> None:
    turn_context = context()
    await log.claim(turn_context, request(), None)
    assert await log.withdraw(turn_context, None, FULL)
    assert await redis.zcard(UNFINISHED_RUNS) == 0
    assert await start().events(turn_context, request()) == []
    assert (await log.run(turn_context, turn_context.run_id)).status == "failed"


async def test_whoever_joined_it_is_told_and_its_key_begins_another(log: RunEventLog) -> None:
    turn_context, joining, later = context(), context(), context()
    await log.claim(turn_context, request(), "key")
    joined = await log.claim(joining, request(), "key")
    reading = asyncio.ensure_future(anext(log.events(joining, joined.run_id)))
    await asyncio.sleep(0.05)
    assert await log.withdraw(turn_context, "key", FULL)
    last_event = (await asyncio.wait_for(reading, 2)).data
    assert isinstance(last_event, Failed)
    assert (last_event.error.code, last_event.error.message) == ("overloaded", FULL.message)
    assert await log.claim(later, request(), "key") == Claim(run_id=later.run_id, fresh=True)


async def test_a_withdrawal_whose_reply_was_lost_is_made_again_without_harm(log: RunEventLog) -> None:
    turn_context, later = context(), context()
    await log.claim(turn_context, request(), "key")
    assert await log.withdraw(turn_context, "key", FULL)
    await log.claim(later, request(), "key")
    assert await log.withdraw(turn_context, "key", FULL)
    assert not (await log.claim(context(), request(), "key")).fresh
    assert (await log.run(turn_context, turn_context.run_id)).last_event_id == 1
    assert await log.withdraw(context(), None, FULL)


@pytest.mark.parametrize("waits", [False, True])
async def test_a_run_that_a_process_has_is_not_withdrawn(start: Start, log: RunEventLog, *, waits: bool) -> None:
    may_end = asyncio.Event()

    async def work(run: Run) -> Answer:
        await may_end.wait()
        return answer(run)

    first, turn_context = context(), context()
    process = start(work)
    if waits:
        process.worker.start(first, request())
        await asyncio.sleep(0.1)
    await log.claim(turn_context, request(), "key")
    process.worker.start(turn_context, request())
    await asyncio.sleep(0.1)
    assert (await log.run(turn_context, turn_context.run_id)).status == ("queued" if waits else "running")
    assert not await log.withdraw(turn_context, "key", FULL)
    assert not (await log.claim(context(), request(), "key")).fresh
    may_end.set()
    events = [event async for event in log.events(turn_context, turn_context.run_id)]
    assert events[-1].name == "answer"
    assert not await log.withdraw(turn_context, "key", FULL)


async def test_what_is_left_of_it_goes_soon(log: RunEventLog, redis: Redis) -> None:
    turn_context = context()
    await log.claim(turn_context, request(), "key")
    await log.withdraw(turn_context, "key", FULL)
    keys = RunKeys(turn_context.tenant, turn_context.run_id)
    assert sorted(await redis.keys("*")) == [keys.run, keys.steps]
    for key in (keys.run, keys.steps):
        assert 0 < await redis.ttl(key) <= WITHDRAWN_TTL_S
