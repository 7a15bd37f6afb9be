"""A run ends once, whatever becomes of the processes that run it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import pytest
from worker_process import WorkerProcess, answer, context, greet, request

from serve_app.errors import AgentUnavailable, Overloaded, RunAbandoned
from serve_app.resilience.deadline import local_deadline, remaining_s
from serve_app.runs.run import MAX_ADOPTIONS
from serve_app.runs.store import LEASE_MS
from serve_app.values import Answer, Cancelled, Failed, RunEvent, Token, ToolRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from serve_app.runs.event_log import RunEventLog
    from serve_app.runs.run import Run
    from serve_app.values import Context

    Start = Callable[..., WorkerProcess]

ADOPTED_S = LEASE_MS / 1000 + 3
EXCHANGES = "serve_app:session:{default:s}:exchanges"


class Hanging:
    """A turn that says half a word and waits; `begun` tells that it has, `ended` how often it was stopped."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = 0
        self.runs: list[Run] = []

    async def __call__(self, run: Run) -> Answer:
        self.runs.append(run)
        run.stream(Token(text="Hel"))
        self.begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            self.ended += 1
        raise AssertionError("nobody waits so long")


class Follower:
    """Reads what a process tells of a run, until it tells no more."""

    def __init__(self, process: WorkerProcess, turn_context: Context, after: int = 0) -> None:
        self.events: list[RunEvent] = []
        self.task = asyncio.create_task(self._read(process, turn_context, after))

    async def _read(self, process: WorkerProcess, turn_context: Context, after: int) -> None:
        async for event in process.worker.follow(turn_context, request(), after):
            self.events.append(event)

    async def until(self, name: str) -> None:
        async with asyncio.timeout(5):
            while name not in [event.name for event in self.events]:  # noqa: ASYNC110 - another task is waited for
                await asyncio.sleep(0.005)


async def _dead(start: Start, turn_context: Context) -> Follower:
    """A run whose process has died after half a word; what its follower saw."""
    process = start(Hanging())
    follower = Follower(process, turn_context)
    await follower.until("token")
    await process.die()
    await follower.task
    return follower


async def test_a_run_is_followed_from_its_first_event_to_its_last(start: Start, redis: Redis) -> None:
    events = await start().events(context(), request())
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert (events[0].name, events[-1].name) == ("run", "answer")
    assert "".join(event.data.text for event in events if isinstance(event.data, Token)) == "How do you do."
    assert await redis.lrange(EXCHANGES, 0, -1) == ['{"said": "How do you do."}']


async def test_any_number_follow_a_run_from_wherever_they_are(start: Start) -> None:
    process, turn_context = start(), context()
    all_of_it, *others = await asyncio.gather(*(process.events(turn_context, request(), after) for after in (0, 0, 2)))
    assert others == [all_of_it, all_of_it[2:]]


async def test_a_follower_who_leaves_stops_nothing(start: Start, log: RunEventLog) -> None:
    process, turn_context = start(), context()
    follower = Follower(process, turn_context)
    await follower.until("run")
    follower.task.cancel()
    events = [event async for event in log.events(turn_context, turn_context.run_id)]
    assert events[-1].name == "answer"


async def test_a_run_goes_on_at_once_where_its_follower_takes_it(start: Start, log: RunEventLog) -> None:
    turn_context = context()
    seen = (await _dead(start, turn_context)).events
    begun = time.monotonic()
    events = [*seen, *await start().events(turn_context, request(), seen[-1].id)]
    assert time.monotonic() - begun < LEASE_MS / 1000
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert [event.name for event in events[:4]] == ["run", "token", "run", "token"]
    assert [event.data.recovered for event in events if event.name == "run"] == [False, True]
    assert [event async for event in log.events(turn_context, turn_context.run_id)] == events
    assert (await log.run(turn_context, turn_context.run_id)).adoptions == 1


async def test_events_that_were_logged_but_not_told_are_told_by_the_successor(start: Start) -> None:
    turn_context = context()
    seen = (await _dead(start, turn_context)).events
    events = await start().events(turn_context, request(), 1)
    assert events[: len(seen) - 1] == seen[1:]


async def test_a_run_that_nobody_follows_is_adopted_when_its_owner_is_not_heard_of(
    start: Start, log: RunEventLog
) -> None:
    turn_context = context()
    await _dead(start, turn_context)
    start()
    async with asyncio.timeout(ADOPTED_S):
        events = [event async for event in log.events(turn_context, turn_context.run_id)]
    assert events[-1].name == "answer"
    assert (await log.run(turn_context, turn_context.run_id)).status == "success"


async def test_two_processes_that_see_a_lapsed_run_adopt_it_once(start: Start, log: RunEventLog, redis: Redis) -> None:
    turn_context = context()
    await _dead(start, turn_context)
    others = start(), start(), start()
    await others[0].expire_leases()
    async with asyncio.timeout(ADOPTED_S):
        names = [event.name async for event in log.events(turn_context, turn_context.run_id)]
    assert (names.count("run"), names.count("answer")) == (2, 1)
    assert await redis.llen(EXCHANGES) == 1  # type: ignore[misc]  # redis-py types both clients at once


async def test_a_follower_does_not_take_a_run_from_a_process_that_lives(start: Start) -> None:
    turn_context, hanging = context(), Hanging()
    follower = Follower(start(hanging), turn_context)
    await follower.until("token")
    assert await start().events(turn_context, request(), 0) == []
    assert hanging.ended == 0


async def test_a_run_that_was_registered_is_run_even_if_nobody_starts_it(start: Start, log: RunEventLog) -> None:
    turn_context = context()
    assert (await log.claim(turn_context, request(), None)).fresh
    assert (await log.run(turn_context, turn_context.run_id)).status == "queued"
    await start().expire_leases()
    async with asyncio.timeout(ADOPTED_S):
        events = [event async for event in log.events(turn_context, turn_context.run_id)]
    assert events[-1].name == "answer"
    assert (await log.run(turn_context, turn_context.run_id)).adoptions == 0


async def test_a_run_over_which_processes_die_again_and_again_is_given_up(start: Start, log: RunEventLog) -> None:
    turn_context = context(seconds=60)
    after = 0
    for _ in range(MAX_ADOPTIONS + 1):
        process = start(Hanging())
        follower = Follower(process, turn_context, after)
        await follower.until("token")
        await process.die()
        after = follower.events[-1].id

    async def give_up(run: Run) -> Answer:
        if run.abandoned:
            raise RunAbandoned("Each process died")
        return answer(run)

    *_, last = await start(give_up).events(turn_context, request(), after)
    assert isinstance(last.data, Failed)
    assert (last.data.error.code, last.data.error.retryable) == ("run_abandoned", False)
    assert (await log.run(turn_context, turn_context.run_id)).error == last.data.error


async def test_turns_of_a_session_run_one_after_the_other(start: Start) -> None:
    running, most = 0, 0

    async def work(run: Run) -> Answer:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return answer(run)

    processes = [start(work), start(work)]
    runs = (processes[number % 2].events(context(), request()) for number in range(10))
    assert [events[-1].name for events in await asyncio.gather(*runs)] == ["answer"] * 10
    assert most == 1


@pytest.mark.parametrize("behind_s", [0, 3000])
async def test_a_message_that_waits_past_its_deadline_is_refused(
    start: Start, log: RunEventLog, behind_s: float
) -> None:
    process, late = start(Hanging()), context(seconds=0.5, behind_s=behind_s)
    await Follower(process, context()).until("token")
    assert await process.events(late, request()) == []
    [last] = [event async for event in log.events(late, late.run_id)]
    assert isinstance(last.data, Failed)
    assert last.data.error.code == "session_busy"


async def test_what_a_run_has_waited_for_its_turn_is_taken_from_its_time(start: Start) -> None:
    left: list[float] = []

    async def work(run: Run) -> Answer:
        left.append(remaining_s(local_deadline(run.context)))
        await asyncio.sleep(0.5)
        return await greet(run)

    process = start(work)
    runs = [process.events(context(seconds=20, behind_s=behind_s), request()) for behind_s in (0, 3000)]
    await asyncio.gather(*runs)
    assert left[0] == pytest.approx(20, abs=0.2)
    assert left[1] < 19.5


async def test_a_run_that_is_adopted_has_no_more_than_its_whole_time(start: Start) -> None:
    turn_context, left = context(seconds=20, behind_s=3000), list[float]()

    async def work(run: Run) -> Answer:
        left.append(remaining_s(local_deadline(run.context)))
        return await greet(run)

    seen = (await _dead(start, turn_context)).events
    ended = Follower(start(work), turn_context, after=seen[-1].id)
    await ended.task
    assert ended.events[-1].name == "answer"
    assert 0 < left[0] <= 20


async def test_what_a_later_version_says_of_a_run_does_not_keep_it_from_being_adopted(
    start: Start, log: RunEventLog, redis: Redis
) -> None:
    turn_context = context()
    await _dead(start, turn_context)
    key = f"serve_app:run:{{default:{turn_context.run_id}}}"
    stored_context = json.loads(await redis.hget(key, "context") or "")  # type: ignore[misc]
    await redis.hset(key, "context", json.dumps({**stored_context, "later": 1}))  # type: ignore[misc]
    start()
    async with asyncio.timeout(ADOPTED_S):
        events = [event async for event in log.events(turn_context, turn_context.run_id)]
    assert events[-1].name == "answer"


async def test_a_message_to_a_busy_session_is_refused_at_once_where_that_is_wanted(
    start: Start, log: RunEventLog
) -> None:
    process, second = start(Hanging(), second_message="reject"), context()
    await Follower(process, context()).until("token")
    assert await process.events(second, request()) == []
    assert [event.name async for event in log.events(second, second.run_id)] == ["error"]


async def test_a_message_cancels_the_turn_that_runs_where_that_is_wanted(start: Start, log: RunEventLog) -> None:
    first, hanging = context(), Hanging()
    await Follower(start(hanging), first).until("token")
    begun = time.monotonic()
    events = await start(greet, second_message="cancel_running").events(context(), request())
    assert events[-1].name == "answer"
    assert time.monotonic() - begun < LEASE_MS / 1000
    assert hanging.ended == 1
    assert (await log.run(first, first.run_id)).status == "cancelled"


async def test_a_cancelled_run_stops_within_a_second_and_leaves_its_session(
    start: Start, log: RunEventLog, redis: Redis
) -> None:
    turn_context, hanging = context(), Hanging()
    process = start(hanging)
    follower = Follower(process, turn_context)
    await follower.until("token")
    hanging.runs[0].exchange = "what was done"
    begun = time.monotonic()
    assert (await log.cancel(turn_context, turn_context.run_id)).status == "cancelled"
    await follower.task
    assert time.monotonic() - begun < LEASE_MS / 1000
    assert hanging.ended == 1
    *_, last = [event async for event in log.events(turn_context, turn_context.run_id)]
    assert last.data == Cancelled(run_id=turn_context.run_id)
    assert await redis.lrange(EXCHANGES, 0, -1) == ["what was done"]
    assert not await redis.exists("serve_app:session:{default:s}:lease")


async def test_a_run_that_waits_for_its_turn_can_be_cancelled(start: Start, log: RunEventLog) -> None:
    process, second = start(Hanging()), context()
    await Follower(process, context()).until("token")
    await log.claim(second, request(), None)
    waiting = Follower(process, second)
    await log.cancel(second, second.run_id)
    async with asyncio.timeout(2):
        await waiting.task
    assert process.worker.running == 1


async def test_cancelling_a_run_that_has_ended_changes_nothing(start: Start, log: RunEventLog) -> None:
    turn_context = context()
    events = await start().events(turn_context, request())
    run = await log.cancel(turn_context, turn_context.run_id)
    assert (run.status, run.answer) == ("success", events[-1].data)


async def test_an_owner_that_wakes_up_late_writes_nothing_and_stops(
    start: Start, log: RunEventLog, redis: Redis
) -> None:
    turn_context, hanging = context(), Hanging()
    sleeper = start(hanging)
    follower = Follower(sleeper, turn_context)
    await follower.until("token")
    looking = sleeper.worker._background[2]
    looking.cancel()  # it sleeps: nothing is renewed
    start()
    async with asyncio.timeout(ADOPTED_S):
        events = [event async for event in log.events(turn_context, turn_context.run_id)]
    rows = await redis.lrange(EXCHANGES, 0, -1)  # type: ignore[misc]
    [run] = hanging.runs
    run.exchange = "of the past"
    run.stream(Token(text="of the past"))
    with pytest.raises(Exception, match="is superseded"):
        await run.record((ToolRequest(id="c", name="n", arguments={}), ""))
    with pytest.raises(Exception, match="is superseded"):
        await run.journal_effect(0, 0)
    with pytest.raises(Exception, match="is superseded"):
        await run.end(answer(run), "success")
    await follower.task
    assert hanging.ended == 1
    assert follower.events == events[: len(follower.events)]
    assert [event async for event in log.events(turn_context, turn_context.run_id)] == events
    assert await redis.lrange(EXCHANGES, 0, -1) == rows  # type: ignore[misc]


async def test_a_right_that_lapsed_and_that_nobody_took_is_still_good(start: Start, redis: Redis) -> None:
    async def work(run: Run) -> Answer:
        await redis.delete("serve_app:session:{default:s}:lease")
        await run.record((ToolRequest(id="c", name="n", arguments={}), ""))
        return answer(run)

    assert (await start(work).events(context(), request()))[-1].name == "answer"


async def test_an_effect_is_reserved_by_one_owner_only(start: Start) -> None:
    reserved: list[tuple[bool, bool]] = []

    async def work(run: Run) -> Answer:
        reserved.append((await run.journal_effect(0, 0), await run.journal_effect(0, 0)))
        if len(reserved) == 1:
            await asyncio.sleep(60)
        return answer(run)

    process, turn_context = start(work), context()
    follower = Follower(process, turn_context)
    async with asyncio.timeout(5):
        while not reserved:  # noqa: ASYNC110 - another task is waited for
            await asyncio.sleep(0.005)
    await follower.until("run")
    await process.die()
    await start(work).events(turn_context, request(), follower.events[-1].id)
    assert reserved == [(True, True), (False, False)]


async def test_a_process_that_shuts_down_lets_its_runs_end(start: Start) -> None:
    process = start()
    follower = Follower(process, context())
    await follower.until("run")
    await process.worker.close(grace_s=10)
    assert follower.events[-1].name == "answer"


async def test_what_does_not_end_in_the_grace_time_goes_on_elsewhere_at_once(start: Start, log: RunEventLog) -> None:
    turn_context, waiting = context(), context()
    process = start(Hanging())
    followers = [Follower(process, turn_context)]
    await followers[0].until("token")
    followers.append(Follower(process, waiting))
    await asyncio.sleep(0.1)
    await process.worker.close(grace_s=0.1)
    await asyncio.gather(*(each.task for each in followers))
    begun = time.monotonic()
    start()
    for each in (turn_context, waiting):
        events = [event async for event in log.events(each, each.run_id)]
        assert events[-1].name == "answer"
        assert (await log.run(each, each.run_id)).adoptions == 0
    assert time.monotonic() - begun < LEASE_MS / 1000


async def test_a_process_that_shuts_down_takes_no_more_runs(start: Start) -> None:
    process = start()
    await process.worker.close(grace_s=0)
    with pytest.raises(AgentUnavailable):
        await process.events(context(), request())


async def test_a_process_that_is_full_refuses_before_any_work(start: Start, redis: Redis) -> None:
    process, second = start(Hanging(), max_runs=1), context("t")
    await Follower(process, context()).until("token")
    with pytest.raises(Overloaded):
        await process.events(second, request("t"))
    assert not await redis.keys(f"*{second.run_id}*")


async def test_a_run_whose_log_grows_too_large_fails_and_says_so(start: Start) -> None:
    async def work(run: Run) -> Answer:
        for number in range(100):
            state = json.dumps("x" * 10_000)
            await run.record((ToolRequest(id=str(number), name="n", arguments={}), state))
        return answer(run)

    events = await start(work, max_bytes=64 * 1024).events(context(), request())
    assert isinstance(events[-1].data, Failed)
    assert events[-1].data.error.code == "run_too_large"


async def test_every_key_of_a_run_has_a_time_to_live(start: Start, log: RunEventLog, redis: Redis) -> None:
    async def work(run: Run) -> Answer:
        await run.journal_effect(0, 0)
        return await greet(run)

    cancelled = context("t")
    await log.claim(context("u"), request("u"), "key")
    await start(work).events(context(), request())
    await Follower(start(Hanging()), cancelled).until("token")
    await log.cancel(cancelled, cancelled.run_id)
    keys = await redis.keys("*")
    assert len(keys) > 10
    assert [key for key in keys if await redis.ttl(key) == -1] == []


async def test_the_health_of_a_process_depends_on_its_own_tasks(start: Start) -> None:
    process = start()
    await asyncio.sleep(0)
    process.worker.check()
    process.worker._background[0].cancel()
    await asyncio.sleep(0)
    with pytest.raises(Exception, match="has ended"):
        process.worker.check()
