"""Metrics of runs: each run is counted once, by the process that ended it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from test_worker import Follower, Hanging
from worker_process import WorkerProcess, answer, context, greet, request

from serve_app.config import RunSettings
from serve_app.errors import ModelUnavailable
from serve_app.observability.metric_catalogue import (
    DEGRADED,
    FIRST_TOKEN_S,
    IN_FLIGHT,
    OLDEST_S,
    QUEUE_WAIT_S,
    RECOVERIES,
    SESSION_BYTES,
    TURN_S,
    TURNS,
)
from serve_app.observability.metrics import InMemoryMetrics
from serve_app.runs.event_log import RunEventLog
from serve_app.runs.metrics import RunMetrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from serve_app.runs.run import Run
    from serve_app.values import Answer, Context

    Start = Callable[..., WorkerProcess]


def ends(*recorders: InMemoryMetrics) -> list[dict[str, float]]:
    """How the runs ended that each has counted; a histogram has as many."""
    for each in recorders:
        assert each.of(TURNS) == each.of(TURN_S)
    return [{labels[0][1]: count for labels, count in each.counted[TURNS].items()} for each in recorders]


@pytest.fixture
def ingress(redis: Redis) -> tuple[RunEventLog, InMemoryMetrics]:
    metrics = InMemoryMetrics()
    return RunEventLog(redis, RunSettings(), RunMetrics(metrics)), metrics


async def degraded(run: Run) -> Answer:
    missing = ["memory", "model", "retriever", "tool:invented-1", "tool:invented-2", "tool:look"]
    return answer(run).model_copy(update={"status": "degraded", "degraded": missing})


async def fail(run: Run) -> Answer:
    raise ModelUnavailable("down")


async def test_a_run_that_is_answered_is_counted_with_its_times_and_what_it_takes_up(start: Start) -> None:
    process = start(greet)
    begun = time.monotonic()
    await process.events(context(), request())
    took_s = time.monotonic() - begun
    metrics = process.metrics
    assert ends(metrics) == [{"success": 1}]
    (lived_s,) = metrics.observed[TURN_S].popitem()[1]
    (first_s,) = metrics.observed[FIRST_TOKEN_S].popitem()[1]
    (waited_s,) = metrics.observed[QUEUE_WAIT_S].popitem()[1]
    (size,) = metrics.observed[SESSION_BYTES].popitem()[1]
    assert 0 <= waited_s <= first_s < lived_s - 0.08 < lived_s <= took_s
    assert 30 < size < 500
    assert not metrics.of(RECOVERIES)


async def test_a_run_without_words_has_no_first_token(start: Start) -> None:
    async def silent(run: Run) -> Answer:
        return answer(run)

    process = start(silent)
    await process.events(context(), request(stream=False))
    assert ends(process.metrics) == [{"success": 1}]
    assert not process.metrics.of(FIRST_TOKEN_S)


async def test_a_degraded_run_is_counted_by_part_and_an_invented_tool_makes_no_series(start: Start) -> None:
    process = start(degraded)
    await process.events(context(), request())
    assert ends(process.metrics) == [{"degraded": 1}]
    parts = {"memory": 1, "model": 1, "retriever": 1, "tool:look": 1, "tool:unknown": 2}
    assert process.metrics.of(DEGRADED) == parts


async def test_a_run_that_fails_is_an_error(start: Start) -> None:
    process = start(fail)
    await process.events(context(), request())
    assert ends(process.metrics) == [{"error": 1}]


async def test_a_run_that_is_cancelled_is_counted_by_who_cancelled_it_and_by_nobody_else(
    start: Start, ingress: tuple[RunEventLog, InMemoryMetrics]
) -> None:
    (log, counted), turn_context, process = ingress, context(), start(Hanging())
    follower = Follower(process, turn_context)
    await follower.until("token")
    for _ in range(2):
        await log.cancel(turn_context, turn_context.run_id)
    await follower.task
    assert ends(process.metrics, counted) == [{}, {"cancelled": 1}]


async def test_a_run_that_has_ended_is_not_counted_again_where_it_is_cancelled(
    start: Start, ingress: tuple[RunEventLog, InMemoryMetrics]
) -> None:
    (log, counted), turn_context, process = ingress, context(), start(greet)
    await process.events(turn_context, request())
    await log.cancel(turn_context, turn_context.run_id)
    assert ends(process.metrics, counted) == [{"success": 1}, {}]


async def test_a_run_that_waits_is_counted_when_it_is_cancelled_and_when_its_time_runs_out(
    start: Start, ingress: tuple[RunEventLog, InMemoryMetrics]
) -> None:
    (log, counted), process, second = ingress, start(Hanging()), context()
    await Follower(process, context()).until("token")
    waiting = Follower(process, second)
    await asyncio.sleep(0.1)
    await log.cancel(second, second.run_id)
    await waiting.task
    await process.events(context(seconds=0.2), request())
    assert ends(process.metrics, counted) == [{"error": 1}, {"cancelled": 1}]


async def test_a_second_message_that_cancels_the_first_counts_both(start: Start) -> None:
    hanging = Hanging()

    async def first_hangs(run: Run) -> Answer:
        return await (greet(run) if hanging.runs else hanging(run))

    process = start(first_hangs, second_message="cancel_running")
    await Follower(process, context()).until("token")
    await process.events(context(), request())
    assert ends(process.metrics) == [{"cancelled": 1, "success": 1}]


async def _take_over(start: Start, turn_context: Context, work: Any = greet) -> tuple[WorkerProcess, WorkerProcess]:
    first = start(Hanging())
    follower = Follower(first, turn_context)
    await follower.until("token")
    await first.die()
    await follower.task
    second = start(work)
    await second.events(turn_context, request(), after=follower.events[-1].id)
    return first, second


async def test_a_run_that_is_taken_over_is_a_recovery_and_one_turn_that_waited_once(start: Start) -> None:
    turn_context = context()
    first, second = await _take_over(start, turn_context)
    assert ends(first.metrics, second.metrics) == [{}, {"success": 1}]
    assert second.metrics.of(RECOVERIES) == {(): 1}
    assert (first.metrics.of(QUEUE_WAIT_S), second.metrics.of(QUEUE_WAIT_S)) == ({(): 1}, {})
    assert (first.metrics.of(FIRST_TOKEN_S), second.metrics.of(FIRST_TOKEN_S)) == ({"stable": 1}, {})


async def test_a_run_that_is_handed_over_is_no_recovery(start: Start) -> None:
    turn_context, first = context(), start(Hanging())
    follower = Follower(first, turn_context)
    await follower.until("token")
    await first.worker.close(grace_s=0)
    await follower.task
    second = start(greet)
    await second.events(turn_context, request(), after=follower.events[-1].id)
    assert ends(first.metrics, second.metrics) == [{}, {"success": 1}]
    assert not second.metrics.of(RECOVERIES)


async def test_the_runs_in_flight_and_the_age_of_the_oldest_are_told(start: Start) -> None:
    process = start(Hanging())
    followers = [Follower(process, context(session=f"s{number}")) for number in range(3)]
    for each in followers:
        await each.until("token")
    await asyncio.sleep(0.7)
    assert process.metrics.of(IN_FLIGHT) == {(): 3}
    assert 0.1 < process.metrics.of(OLDEST_S)[()] < 5


async def test_a_process_without_runs_says_so(start: Start) -> None:
    process = start(greet)
    await process.events(context(), request())
    await asyncio.sleep(0.7)
    assert process.metrics.of(IN_FLIGHT) == {(): 0}
    assert process.metrics.of(OLDEST_S) == {(): 0}
