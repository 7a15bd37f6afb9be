"""One run that cannot be encoded, written, read or adopted ends by itself; the others go on at once."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from worker_process import answer, context, greet, request

from serve_app.errors import StoreCorrupt
from serve_app.runs.store import LEASE_MS, RunAppend, RunLease, RunStore
from serve_app.stores.redis_keys import UNFINISHED_RUNS, RunKeys, SessionKeys, control_stream
from serve_app.values import Answer, Cancelled, Failed, Token, ToolRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from captured_logs import CapturedLogs
    from redis.asyncio import Redis
    from worker_process import WorkerProcess

    from serve_app.runs.event_log import RunEventLog
    from serve_app.runs.run import Run
    from serve_app.runs.store import WriteResult
    from serve_app.values import Context, RunEvent

    Start = Callable[..., WorkerProcess]

LATE_S = 2.0
"""Nobody is slowed by more than this."""
ADOPTED_S = LEASE_MS / 1000 + 3
HALF = "\ud83d"
POISON = "poison"


class Unencodable(Token):
    """A token of which no JSON can be made."""

    def sanitize_and_encode(self) -> tuple[Unencodable, str]:
        raise UnicodeEncodeError("utf-8", HALF, 0, 1, "poison")


async def says_what_cannot_be_encoded(run: Run) -> Answer:
    run.stream(Unencodable(text="x"))
    await asyncio.sleep(0.1)
    await run.record((Token(text="y"), ""))
    raise AssertionError("its failure is told at its next step")


async def answers_what_cannot_be_encoded(run: Run) -> Answer:
    return Unwritable(**dict(answer(run)))


class Unwritable(Answer):
    """An answer of which no JSON can be made."""

    def sanitize_and_encode(self) -> tuple[Unwritable, str]:
        raise ValueError("poison")


async def breaks_its_own_log(run: Run) -> Answer:
    """Its key of steps is a string from now on."""
    client: Any = run.writer.store._redis
    key = RunKeys(run.context.tenant, run.context.run_id).steps
    await client.set(key, "no stream")
    await run.record((ToolRequest(id="c", name="n", arguments={}), ""))
    raise AssertionError("nobody can write that")


async def odd_values(run: Run) -> Answer:
    """What a model or a tool may have said."""
    run.stream(Token(text=f"a{HALF}"))
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    arguments = {HALF: float("nan"), "deep": deep, "thing": object(), "bytes": b"\xff", "large": 10**5000}
    await run.record((ToolRequest(id=HALF, name=HALF, arguments=arguments), f'"{HALF}"'))
    run.exchange = f'{{"said": "{HALF}"}}'
    return answer(run, f"Hi{HALF}")


def poisoned_by(work: Callable[[Run], Any]) -> Callable[[Run], Any]:
    """Runs of the session POISON do `work`, others greet."""

    async def turn(run: Run) -> Answer:
        done: Answer = await (work if run.context.session_id == POISON else greet)(run)
        return done

    return turn


async def beside_others(process: WorkerProcess, poison: Context, several: int = 5) -> tuple[list[RunEvent], float]:
    """The events of the poisoned run, and how long the slowest of the others took, all of which must be answered."""

    async def greeted(session: str) -> float:
        begun = time.monotonic()
        events = await process.events(context(session), request(session))
        assert isinstance(events[-1].data, Answer)
        assert "memory" not in events[-1].data.degraded
        return time.monotonic() - begun

    async with asyncio.timeout(15):
        mine, *others = await asyncio.gather(
            process.events(poison, request(POISON)), *(greeted(f"s{number}") for number in range(several))
        )
    return mine, max(others)


@pytest.mark.parametrize(
    "work",
    [says_what_cannot_be_encoded, answers_what_cannot_be_encoded, breaks_its_own_log],
    ids=lambda each: each.__name__,
)
async def test_a_run_that_cannot_be_written_fails_alone_and_its_session_is_free_at_once(
    start: Start, redis: Redis, captured_logs: CapturedLogs, work: Callable[[Run], Any]
) -> None:
    process, poison = start(poisoned_by(work)), context(POISON)
    events, slowest_s = await beside_others(process, poison)
    assert isinstance(events[-1].data, Failed)
    assert events[-1].data.error.code == "internal"
    assert slowest_s < LATE_S
    assert any(line.get("exception") for line in captured_logs.lines)
    assert await redis.zscore(UNFINISHED_RUNS, RunKeys("default", poison.run_id).member) is None
    assert not await redis.exists(SessionKeys("default", POISON).lease)
    again = await start().events(context(POISON), request(POISON))
    assert isinstance(again[-1].data, Answer)
    process.worker.check()


async def test_what_json_cannot_say_is_logged_and_told_as_well_as_it_can_be(start: Start, log: RunEventLog) -> None:
    process, turn_context = start(poisoned_by(odd_values)), context(POISON)
    events, slowest_s = await beside_others(process, turn_context)
    assert [event async for event in log.events(turn_context, turn_context.run_id)] == events
    assert isinstance(events[-1].data, Answer)
    assert events[-1].data.result == "Hi\N{REPLACEMENT CHARACTER}"
    assert slowest_s < LATE_S


class Refuses(RunStore):
    """Cannot write what is of one session, for a reason that nobody foresaw."""

    async def append(self, appends: Sequence[RunAppend]) -> list[WriteResult]:
        if any(each.context.session_id == POISON for each in appends):
            raise RuntimeError("poison")
        return await super().append(appends)


async def test_an_append_that_raises_costs_its_own_run_only(start: Start, captured_logs: CapturedLogs) -> None:
    process = start()
    process.store.__class__ = Refuses
    events, slowest_s = await beside_others(process, context(POISON))
    assert isinstance(events[-1].data, Failed)
    assert slowest_s < LATE_S
    assert captured_logs.of("events_not_written")[0]["exception"]


@pytest.mark.parametrize("broken", ["lease", "meta"])
async def test_a_session_whose_key_is_corrupt_is_answered_without_memory(
    start: Start, redis: Redis, broken: str
) -> None:
    await redis.set(getattr(SessionKeys("default", POISON), broken), "no hash")
    process = start()
    events, slowest_s = await beside_others(process, context(POISON))
    assert isinstance(events[-1].data, Answer)
    assert slowest_s < LATE_S
    assert not process.worker._services.writer.availability.is_away


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"event": "tool_call", "data": "{"}, "tool_call"),
        ({"event": "approval_of_a_later_version", "data": "{}"}, "unknown kind"),
        ({"data": "{}"}, "no kind"),
        ({"event": "token"}, "no data"),
        ({"event": "token", "data": '{"text": "\\ud83d"}'}, "half a surrogate pair"),
        ({"event": "token", "data": b"\xff\xfe"}, "no UTF-8"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
async def test_an_event_that_cannot_be_read_is_left_out_of_its_run_and_of_no_other(
    start: Start, redis: Redis, log: RunEventLog, fields: dict[Any, Any], kind: str
) -> None:
    poison, other = context(POISON), context("other")
    process, keys = start(), RunKeys("default", poison.run_id)
    whole = await process.events(poison, request(POISON))
    last = whole[-1].id
    await redis.xadd(keys.steps, fields, id=f"{last}-1")
    await process.events(other, request("other"))
    async with asyncio.timeout(5):
        assert [event async for event in log.events(poison, poison.run_id)] == whole, kind
        assert [event async for event in log.events(other, other.run_id)][-1].last


async def test_a_last_event_that_cannot_be_read_is_a_failure_and_nobody_waits_for_it(
    start: Start, redis: Redis, log: RunEventLog, captured_logs: CapturedLogs
) -> None:
    turn_context = context()
    keys, last = RunKeys("default", turn_context.run_id), len(await start().events(turn_context, request()))
    await redis.xdel(keys.steps, f"{last}-0")
    await redis.xadd(keys.steps, {"event": "answer", "data": "{"}, id=f"{last}-1")
    async with asyncio.timeout(5):
        events = [event async for event in log.events(turn_context, turn_context.run_id)]
    assert isinstance(events[-1].data, Failed)
    run = await log.run(turn_context, turn_context.run_id)
    assert (run.answer, run.error) == (None, events[-1].data.error)
    assert captured_logs.of("event_unreadable")[0]["exception"]


async def test_a_key_that_is_no_stream_costs_its_own_follower_only(
    start: Start, redis: Redis, log: RunEventLog
) -> None:
    poison = context(POISON)
    await log.claim(poison, request(POISON), None)
    await redis.set(RunKeys("default", poison.run_id).steps, "no stream")

    async def followed(turn_context: Context) -> list[RunEvent]:
        return [event async for event in log.events(turn_context, turn_context.run_id)]

    process, others = start(), [context(f"s{number}") for number in range(5)]
    for each in others:
        await log.claim(each, request(each.session_id), None)
    reading = [asyncio.create_task(followed(each)) for each in (poison, *others)]
    await asyncio.sleep(0.2)
    begun = time.monotonic()
    await asyncio.gather(*(process.events(each, request(each.session_id)) for each in others))
    async with asyncio.timeout(5):
        mine, *theirs = await asyncio.gather(*reading, return_exceptions=True)
    assert isinstance(mine, StoreCorrupt)
    assert all(isinstance(events[-1].data, Answer) for events in theirs)  # type: ignore[index]  # a list, where it is no error
    assert time.monotonic() - begun < LATE_S


async def test_a_stream_that_becomes_none_while_it_is_followed_ends_its_follower_only(
    start: Start, redis: Redis, log: RunEventLog
) -> None:
    poison, other, go = context(POISON), context("other"), asyncio.Event()

    async def waits(run: Run) -> Answer:
        await go.wait()
        return answer(run)

    async def followed(turn_context: Context) -> list[RunEvent]:
        return [event async for event in log.events(turn_context, turn_context.run_id)]

    process = start(waits)
    running = [asyncio.create_task(process.events(each, request(each.session_id))) for each in (poison, other)]
    await asyncio.sleep(0.3)
    reading = [asyncio.create_task(followed(each)) for each in (poison, other)]
    await asyncio.sleep(0.3)
    await redis.set(RunKeys("default", poison.run_id).tokens, "no stream")
    await asyncio.sleep(0.5)
    go.set()
    async with asyncio.timeout(5):
        mine, theirs = await asyncio.gather(*reading, return_exceptions=True)
        await asyncio.gather(*running)
    assert isinstance(mine, StoreCorrupt)
    assert isinstance(theirs[-1].data, Answer)  # type: ignore[index]  # a list, where it is no error


CORRUPT: dict[str, Callable[[Any, str], Any]] = {
    "context": lambda redis, run: redis.hset(run, "context", "{"),
    "request": lambda redis, run: redis.hdel(run, "request"),
    "of another run": lambda redis, run: redis.hset(run, "context", context().model_dump_json()),
    "no UTF-8": lambda redis, run: redis.hset(run, "context", b"\xff"),
    "adoptions": lambda redis, run: redis.hdel(run, "adoptions"),
    "created_at": lambda redis, run: redis.hset(run, "created_at", "yesterday"),
    "last": lambda redis, run: redis.hset(run, "last", "many"),
    "no hash": lambda redis, run: redis.set(run, "no hash"),
    "gone": lambda redis, run: redis.delete(run),
}


@pytest.mark.parametrize("what", CORRUPT)
async def test_a_lapsed_run_that_nobody_can_read_is_adopted_no_more_and_the_others_are(
    start: Start, redis: Redis, log: RunEventLog, what: str
) -> None:
    poison, other = context(POISON), context("other")
    for each in (poison, other):
        await log.claim(each, request(each.session_id), None)
        await redis.zadd(UNFINISHED_RUNS, {RunKeys("default", each.run_id).member: 1})
    await CORRUPT[what](redis, RunKeys("default", poison.run_id).run)
    process = start()
    async with asyncio.timeout(ADOPTED_S):
        assert isinstance([event async for event in log.events(other, other.run_id)][-1].data, Answer)
        while await redis.zcard(UNFINISHED_RUNS):  # noqa: ASYNC110 - another process is waited for
            await asyncio.sleep(0.05)
    process.worker.check()


async def test_whoever_follows_a_run_that_nobody_can_read_learns_that_it_failed(
    start: Start, redis: Redis, log: RunEventLog
) -> None:
    turn_context = context()
    await log.claim(turn_context, request(), None)
    await redis.hset(RunKeys("default", turn_context.run_id).run, "context", "{")  # type: ignore[misc]  # redis-py types both clients at once
    await start().expire_leases()
    async with asyncio.timeout(ADOPTED_S + 2):
        events = [event async for event in log.events(turn_context, turn_context.run_id)]
    assert isinstance(events[-1].data, Failed)


async def test_a_log_that_a_successor_cannot_read_fails_its_run_and_the_others_are_adopted(
    start: Start, redis: Redis, log: RunEventLog
) -> None:
    poison, other, hang = context(POISON), context("other"), asyncio.Event()

    async def hangs(run: Run) -> Answer:
        await hang.wait()
        return answer(run)

    first = start(hangs)
    reading = [asyncio.create_task(first.events(each, request(each.session_id))) for each in (poison, other)]
    await asyncio.sleep(0.3)
    await first.die()
    await asyncio.gather(*reading)
    await redis.xadd(RunKeys("default", poison.run_id).steps, {"event": "tool_result", "data": "{"}, id="1-1")
    await start().expire_leases()
    async with asyncio.timeout(ADOPTED_S):
        mine = [event async for event in log.events(poison, poison.run_id)]
        theirs = [event async for event in log.events(other, other.run_id)]
    assert isinstance(mine[-1].data, Failed)
    assert isinstance(theirs[-1].data, Answer)


async def test_a_control_message_that_is_garbage_keeps_no_other_from_being_heard(
    start: Start, redis: Redis, log: RunEventLog, captured_logs: CapturedLogs
) -> None:
    async def hangs(run: Run) -> Answer:
        await asyncio.sleep(60)
        return answer(run)

    process, turn_context = start(hangs), context()
    reading = asyncio.create_task(process.events(turn_context, request()))
    await asyncio.sleep(0.3)
    for garbage in ({"nothing": "x"}, {"run": b"\xff"}, {"run": ""}):
        await redis.xadd(control_stream(process.store.owner), garbage)  # type: ignore[arg-type]  # what a fault may write
    await log.cancel(turn_context, turn_context.run_id)
    async with asyncio.timeout(LATE_S):
        await reading
    assert process.worker.running == 0
    assert captured_logs.of("control_message_unreadable")[0]["exception"]


async def test_a_run_whose_course_breaks_is_told_as_failed_and_the_others_go_on(
    start: Start, captured_logs: CapturedLogs
) -> None:
    class Breaks(RunStore):
        async def begin(self, *given: Any) -> Any:
            begun = await super().begin(*given)
            if given[0].session_id == POISON and isinstance(begun, RunLease):
                raise RuntimeError(POISON)
            return begun

    process = start()
    process.store.__class__ = Breaks
    events, slowest_s = await beside_others(process, context(POISON))
    assert isinstance(events[-1].data, Failed)
    assert slowest_s < LATE_S
    assert captured_logs.of("run_broken")[0]["exception"]


async def test_one_run_that_cannot_be_renewed_keeps_no_other_from_it(start: Start, redis: Redis) -> None:
    go = asyncio.Event()

    async def waits(run: Run) -> Answer:
        await go.wait()
        await run.record((Token(text="x"), ""))
        return answer(run)

    process, poison, other = start(waits), context(POISON), context("other")
    reading = [asyncio.create_task(process.events(each, request(each.session_id))) for each in (poison, other)]
    await asyncio.sleep(0.3)
    await redis.set(SessionKeys("default", POISON).meta, "no hash")
    await asyncio.sleep(LEASE_MS / 1000 + 0.5)
    assert not process.worker._services.writer.availability.is_away
    go.set()
    async with asyncio.timeout(5):
        mine, theirs = await asyncio.gather(*reading)
    assert isinstance(mine[-1].data, Failed | Cancelled)
    assert isinstance(theirs[-1].data, Answer)
    assert await redis.zcard(UNFINISHED_RUNS) == 0
