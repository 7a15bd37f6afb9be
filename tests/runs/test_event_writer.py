"""The event writer: few round trips, and no event is published before it is written."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from worker_process import context, request

from serve_app.errors import StoreUnavailable
from serve_app.observability.metric_catalogue import TURNS
from serve_app.observability.metrics import InMemoryMetrics
from serve_app.resilience.tasks import cancel_and_wait
from serve_app.runs.event_writer import INTERVAL_FACTOR, INTERVAL_MAX_S, INTERVAL_MIN_S, EventWriter
from serve_app.runs.metrics import RunMetrics
from serve_app.runs.run import EventFeed, Run
from serve_app.runs.store import RunLease
from serve_app.stores.availability import MAX_WAIT_S
from serve_app.values import Answer, Token, ToolRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from serve_app.runs.store import RunAppend, WriteResult

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

CALL = (ToolRequest(id="c", name="n", arguments={}), "")


class Written:
    """What was written, and when; takes its time, or is away for a while."""

    owner = "this process"

    def __init__(self, takes_s: float = 0.0) -> None:
        self.takes_s = takes_s
        self.away_until = 0.0
        self.outcome: WriteResult = "ok"
        self.times: list[float] = []
        self.batches: list[Sequence[RunAppend]] = []
        self.ended: list[Any] = []

    async def append(self, appends: Sequence[RunAppend]) -> list[WriteResult]:
        await asyncio.sleep(self.takes_s)
        if asyncio.get_running_loop().time() < self.away_until:
            raise StoreUnavailable("away")
        self.times.append(asyncio.get_running_loop().time())
        self.batches.append(appends)
        return [self.outcome for _ in appends]

    async def end(self, *given: Any) -> None:
        if asyncio.get_running_loop().time() < self.away_until:
            raise StoreUnavailable("away")
        self.ended.append(given)

    def ids(self, run: Run) -> list[int]:
        return [
            entry.event.id
            for batch in self.batches
            for append in batch
            if append.context == run.context
            for entry in append.entries
        ]


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
async def writer(written: Written) -> AsyncIterator[EventWriter]:
    writer = EventWriter(written, metrics=RunMetrics(InMemoryMetrics()))  # type: ignore[arg-type]
    going_on = asyncio.create_task(writer.write_forever())
    yield writer
    await cancel_and_wait(going_on)


def _run(writer: EventWriter, *, detached: bool = False) -> Run:
    return Run(
        context=context(seconds=1e6),
        request=request(),
        lease=RunLease(1, 0, 0, []),
        store=writer.store,
        availability=writer.availability,
        metrics=writer.metrics,
        schedule_write=writer.schedule,
        max_bytes=10**6,
        feed=EventFeed(),
        detached=detached,
    )


async def _words(run: Run, count: int, every_s: float) -> None:
    for number in range(count):
        run.stream(Token(text=f"{number} "))
        await asyncio.sleep(every_s)


async def test_the_first_word_is_written_at_once_and_those_after_it_in_batches(
    writer: EventWriter, written: Written
) -> None:
    run = _run(writer)
    begun = asyncio.get_running_loop().time()
    await _words(run, 100, 0.005)
    assert written.times[0] - begun < 0.001
    gaps = [after - before for before, after in pairwise(written.times)]
    assert min(gaps) > INTERVAL_MIN_S - 1e-6
    assert max(gaps) < 2 * INTERVAL_MIN_S
    assert written.ids(run) == list(range(1, len(written.times) + 1))


async def test_one_round_trip_carries_the_words_of_all_runs(writer: EventWriter, written: Written) -> None:
    runs = [_run(writer) for _ in range(50)]
    await asyncio.gather(*(_words(run, 20, 0.01) for run in runs))
    await asyncio.sleep(INTERVAL_MAX_S)
    assert len(written.batches) < 15
    assert all(written.ids(run) == list(range(1, len(written.ids(run)) + 1)) for run in runs)


@pytest.mark.parametrize(("takes_s", "expected_s"), [(0.01, 0.1), (0.2, INTERVAL_MAX_S)])
async def test_a_slow_redis_is_written_to_less_often(
    writer: EventWriter, written: Written, takes_s: float, expected_s: float
) -> None:
    written.takes_s = takes_s
    await _words(_run(writer), 100, 0.02)
    gaps = [after - before for before, after in pairwise(written.times)]
    assert gaps[1] == pytest.approx(min(INTERVAL_FACTOR * takes_s, expected_s) + takes_s, abs=0.005)


async def test_a_step_is_written_at_once_with_the_words_before_it(writer: EventWriter, written: Written) -> None:
    run = _run(writer)
    run.stream(Token(text="a"))
    await asyncio.sleep(0.001)
    run.stream(Token(text="b"))
    begun = asyncio.get_running_loop().time()
    await run.record(CALL)
    assert asyncio.get_running_loop().time() - begun < 0.001
    names = [entry.event.name for batch in written.batches for append in batch for entry in append.entries]
    assert names == ["token", "token", "tool_call"]


async def test_nothing_is_told_before_it_is_written(writer: EventWriter, written: Written) -> None:
    run = _run(writer)
    written.away_until = asyncio.get_running_loop().time() + 2
    run.stream(Token(text="a"))
    telling = run.feed.events(0, for_s=1e6)
    first = await anext(telling)
    assert first.data == Token(text="a")
    assert asyncio.get_running_loop().time() >= written.away_until
    await telling.aclose()


async def test_what_could_not_be_written_for_a_moment_is_written_once_and_in_order(
    writer: EventWriter, written: Written
) -> None:
    run = _run(writer)
    written.away_until = asyncio.get_running_loop().time() + MAX_WAIT_S - 1
    await asyncio.gather(_words(run, 50, 0.05), run.record(CALL), run.record(CALL))
    await run.record(CALL)
    assert written.ids(run) == list(range(1, len(written.ids(run)) + 1))


async def test_while_redis_stays_away_steps_are_told_and_written_in_order_when_it_is_back(
    writer: EventWriter, written: Written
) -> None:
    run = _run(writer)
    begun = asyncio.get_running_loop().time()
    written.away_until = begun + MAX_WAIT_S + 7
    await run.record(CALL)
    assert asyncio.get_running_loop().time() - begun == pytest.approx(MAX_WAIT_S, abs=0.2)
    await run.record(CALL, CALL)
    assert asyncio.get_running_loop().time() - begun < MAX_WAIT_S + 1
    assert [event.id async for event in run.feed.events(0, for_s=0)] == [1, 2, 3]
    assert written.batches == []
    await asyncio.sleep(8)
    assert written.ids(run) == [1, 2, 3]
    await run.record(CALL)
    assert written.ids(run) == [1, 2, 3, 4]


@pytest.mark.parametrize("takes_s", [0.0, 0.4])
async def test_words_are_told_and_written_in_order_also_around_the_moment_at_which_redis_is_given_up(
    writer: EventWriter, written: Written, takes_s: float
) -> None:
    run = _run(writer)
    written.takes_s, written.away_until = takes_s, asyncio.get_running_loop().time() + MAX_WAIT_S + 4

    async def away() -> None:
        raise StoreUnavailable("away")

    async def another() -> None:
        with pytest.raises(StoreUnavailable):
            await writer.availability.call_until(away)

    waiting = asyncio.create_task(another())  # a run that began a second earlier gives up while words are being written
    await asyncio.sleep(1)
    await _words(run, 300, 0.02)
    await waiting
    published = [event.id async for event in run.feed.events(0, for_s=0)]
    assert published == list(range(1, len(published) + 1))
    await asyncio.sleep(8)
    assert written.ids(run) == list(range(1, len(written.ids(run)) + 1))
    assert len(written.ids(run)) >= len(published)


@pytest.mark.parametrize("detached", [False, True])
async def test_no_step_waits_for_a_redis_that_is_known_to_hang(
    writer: EventWriter, written: Written, *, detached: bool
) -> None:
    clock = asyncio.get_running_loop().time
    written.takes_s, written.away_until = 2, clock() + MAX_WAIT_S + 20
    await _run(writer).record(CALL)
    run, begun = _run(writer, detached=detached), clock()
    for _ in range(5):
        await run.record(CALL)
    assert clock() - begun < 0.01
    await asyncio.sleep(30)
    assert written.ids(run) == ([] if detached else [1, 2, 3, 4, 5])


async def test_an_answer_that_cannot_be_written_says_so_and_is_remembered_later(
    writer: EventWriter, written: Written
) -> None:
    run = _run(writer)
    run.exchange = "said"
    written.away_until = asyncio.get_running_loop().time() + MAX_WAIT_S + 2
    await run.end(Answer(result="x", session_id="s", run_id="r", model="m"), "success")
    [published] = [event.data async for event in run.feed.events(0, for_s=0)]
    assert isinstance(published, Answer)
    assert (published.status, published.degraded) == ("degraded", ["memory"])
    await asyncio.sleep(3)
    [[append]] = written.batches
    assert (append.status, append.exchange, append.entries[-1].event.data) == ("degraded", "said", published)


async def test_what_was_told_is_refused_later_where_another_process_has_the_run_by_then(
    writer: EventWriter, written: Written
) -> None:
    run = _run(writer)
    written.away_until = asyncio.get_running_loop().time() + MAX_WAIT_S + 2
    written.outcome = "superseded"
    await run.record(CALL)
    await asyncio.sleep(3)
    assert run.stopped == "superseded"


async def test_a_run_that_began_without_redis_is_told_and_its_end_reaches_redis_later(
    writer: EventWriter, written: Written
) -> None:
    run = _run(writer, detached=True)
    written.away_until = asyncio.get_running_loop().time() + 5
    run.stream(Token(text="a"))
    await run.record(CALL)
    with pytest.raises(StoreUnavailable):
        await run.journal_effect(0, 0)
    last = Answer(result="x", session_id="s", run_id="r", model="m").without("memory")
    await run.end(last, "degraded")
    assert [event.name async for event in run.feed.events(0, for_s=0)] == ["token", "tool_call", "answer"]
    await asyncio.sleep(6)
    assert (written.batches, written.ended) == ([], [(run.context, "degraded", last, "")])


async def test_a_turn_that_was_told_is_not_run_again_where_its_session_went_on_before_it_was_written(
    writer: EventWriter, written: Written
) -> None:
    run = _run(writer)
    written.away_until = asyncio.get_running_loop().time() + MAX_WAIT_S + 2
    written.outcome = "superseded"
    await run.end(Answer(result="x", session_id="s", run_id="r", model="m"), "success")
    assert writer.has_backlog
    [published] = [event.data async for event in run.feed.events(0, for_s=0)]
    await asyncio.sleep(3)
    assert (writer.has_backlog, written.ended) == (False, [(run.context, "degraded", published, written.owner)])


@pytest.mark.parametrize("outcome", ["superseded", "ended"])
async def test_a_write_that_is_refused_stops_the_run_and_is_not_told(
    writer: EventWriter, written: Written, outcome: WriteResult
) -> None:
    run = _run(writer)
    written.outcome = outcome
    with pytest.raises(Exception, match=outcome):
        await run.record(CALL)
    assert run.stopped == outcome
    assert [event async for event in run.feed.events(0, for_s=0)] == []


async def test_the_last_event_takes_the_exchange_along(writer: EventWriter, written: Written) -> None:
    run = _run(writer)
    run.exchange = "said"
    await run.record(CALL)
    await run.end(Answer(result="x", session_id="s", run_id="r", model="m"), "success")
    endings = [(append.status, append.exchange) for batch in written.batches for append in batch]
    assert endings == [("", ""), ("success", "said")]


def _counted(writer: EventWriter) -> dict[str, float]:
    assert isinstance(writer.metrics.metrics, InMemoryMetrics)
    return {labels[0][1]: count for labels, count in writer.metrics.metrics.counted[TURNS].items()}


@pytest.mark.parametrize(("outcome", "counts"), [("ok", {"degraded": 1}), ("superseded", {})])
async def test_a_run_that_ends_while_redis_is_away_is_counted_once_its_end_is_written(
    writer: EventWriter, written: Written, outcome: WriteResult, counts: dict[str, int]
) -> None:
    run = _run(writer)
    written.away_until = asyncio.get_running_loop().time() + MAX_WAIT_S + 2
    written.outcome = outcome
    await run.end(Answer(result="x", session_id="s", run_id="r", model="m"), "success")
    assert _counted(writer) == {}
    await asyncio.sleep(3)
    assert _counted(writer) == counts


async def test_a_run_that_waited_to_be_written_when_redis_was_given_up_is_told_and_counted_once(
    writer: EventWriter, written: Written
) -> None:
    clock = asyncio.get_running_loop().time
    written.away_until = clock() + MAX_WAIT_S + 4

    async def away() -> None:
        raise StoreUnavailable("away")

    async def another() -> None:
        with pytest.raises(StoreUnavailable):
            await writer.availability.call_until(away)

    waiting = asyncio.create_task(another())
    await asyncio.sleep(1)
    first, second = _run(writer), _run(writer)
    recording = asyncio.create_task(first.record(CALL))
    await asyncio.sleep(0.5)
    second.stream(Token(text="word"))
    await waiting
    await second.end(Answer(result="r", session_id="s", run_id="r", model="m"), "success")
    await recording
    await asyncio.sleep(10)
    assert [event.id async for event in second.feed.events(0, for_s=0)] == [1, 2]
    assert written.ids(second) == [1, 2]
    assert _counted(writer) == {"degraded": 1}


async def test_a_run_that_began_without_redis_is_counted_once(writer: EventWriter, written: Written) -> None:
    run = _run(writer, detached=True)
    written.away_until = asyncio.get_running_loop().time() + 5
    await run.end(Answer(result="x", session_id="s", run_id="r", model="m").without("memory"), "degraded")
    await asyncio.sleep(6)
    assert written.ended
    assert _counted(writer) == {"degraded": 1}
