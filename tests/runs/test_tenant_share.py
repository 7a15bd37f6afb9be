"""The share of a process that one tenant may use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from worker_process import answer, context, request

from serve_app.errors import Overloaded
from serve_app.runs.store import LEASE_MS, MAX_LAPSED_RUNS
from serve_app.stores.redis_keys import UNFINISHED_RUNS

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis
    from worker_process import WorkerProcess

    from serve_app.runs.event_log import RunEventLog
    from serve_app.runs.run import Run
    from serve_app.values import Answer, Context

    Start = Callable[..., WorkerProcess]

ADOPTED_S = LEASE_MS / 1000 + 3


async def _greedy(run: Run) -> Answer:
    """A turn that takes long for the tenants that have much to do, and no time for others."""
    if run.context.tenant.startswith("greedy"):
        await asyncio.sleep(60)
    return answer(run)


def _context_of(tenant: str) -> Context:
    return context(uuid4().hex, tenant=tenant)


def _begun(process: WorkerProcess, tenant: str) -> bool:
    try:
        process.worker.start(_context_of(tenant), request())
    except Overloaded:
        return False
    return True


def _filled(process: WorkerProcess, *tenants: str) -> list[int]:
    """How many runs each gets, where all want as many as they can have."""
    return [
        sum(each) for each in zip(*([_begun(process, tenant) for tenant in tenants] for _ in range(200)), strict=True)
    ]


@pytest.mark.parametrize(("max_runs", "alone"), [(1, 1), (7, 7), (8, 7), (16, 14), (150, 132)])
async def test_one_tenant_alone_gets_seven_eighths(start: Start, max_runs: int, alone: int) -> None:
    assert _filled(start(_greedy, max_runs=max_runs), "greedy") == [alone]


async def test_another_tenant_is_begun_at_once_and_has_several_turns(start: Start) -> None:
    process = start(_greedy, max_runs=150)
    _filled(process, "greedy")
    for _ in range(3):
        events = await asyncio.gather(*(process.events(_context_of("modest"), request()) for _ in range(10)))
        assert [each[-1].name for each in events] == ["answer"] * 10
    assert not _begun(process, "greedy")


async def test_tenants_that_want_everything_share_it_and_leave_room(start: Start) -> None:
    process = start(_greedy, max_runs=150)
    assert _filled(process, "greedy1", "greedy2") == [70, 70]
    assert _begun(process, "modest")


async def test_who_is_refused_is_told_when_to_come_back(start: Start) -> None:
    process = start(_greedy, max_runs=8)
    _filled(process, "greedy")
    with pytest.raises(Overloaded) as refused:
        process.worker.start(_context_of("greedy"), request())
    assert refused.value.retry_after_s == 5
    for _ in range(2):
        await process.events(_context_of("modest"), request())
    with pytest.raises(Overloaded) as refused:
        process.worker.start(_context_of("greedy"), request())
    assert refused.value.retry_after_s == 1


async def test_what_one_tenant_has_left_behind_keeps_no_other_waiting(start: Start, log: RunEventLog) -> None:
    left, modest = [_context_of("greedy") for _ in range(2 * MAX_LAPSED_RUNS)], _context_of("modest")
    for each in (*left, modest):
        await log.claim(each, request(), None)
    process = start(_greedy, max_runs=16)
    await process.expire_leases()
    async with asyncio.timeout(ADOPTED_S):
        assert (await process.events(_context_of("modest"), request()))[-1].name == "answer"
        events = [event async for event in log.events(modest, modest.run_id)]
    assert events[-1].name == "answer"
    statuses = [(await log.run(each, each.run_id)).status for each in left]
    assert statuses.count("running") == 14


async def test_the_runs_of_full_tenants_hide_none_behind_them(start: Start, log: RunEventLog, redis: Redis) -> None:
    await redis.zadd(UNFINISHED_RUNS, {f"a:{number}": number for number in range(2500)})
    others = [_context_of("ab"), _context_of("b")]
    for at, each in enumerate(others):
        await log.claim(each, request(), None)
        await redis.zadd(UNFINISHED_RUNS, {f"{each.tenant}:{each.run_id}": 3000 + at})
    store = start().store
    assert [found for found, _ in await store.find_lapsed(["a", "c"])] == others
    assert await store.find_lapsed(["a", "ab", "b"]) == []
