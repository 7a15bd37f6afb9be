"""Measures store calls and this process; two `Metrics` that export nothing."""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import get_native_id
from typing import TYPE_CHECKING

from serve_app.observability.metric_catalogue import (
    BREAKER_STATE,
    BREAKER_STATES,
    CPU_S,
    LOOP_BUSY,
    LOOP_LAG_S,
    RESIDENT_BYTES,
    STORE_CALLS,
    STORE_S,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from serve_app.ports import Metrics
    from serve_app.values import Metric, MetricKind

Labels = tuple[tuple[str, str], ...]
logger = logging.getLogger(__name__)

REPORT_EVERY_S = 5.0
"""Ray drops a gauge that was not set for 20 s (two of its reports)."""
SAMPLE_S = 0.25
"""A longer standstill of the event loop is always seen; twenty timers cost a hundredth of a percent of a core."""
WEIGHT = 0.3
"""Of the latest sample in the mean, which follows a change within a second or two."""
STATM = Path("/proc/self/statm")
"""The pages of this process: all, then those in RAM."""


class NullMetrics:
    """Records nothing; implements `ports.Metrics`."""

    def count(self, metric: Metric, by: float = 1, **labels: str) -> None:
        """Do nothing."""

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Do nothing."""

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""


NULL_METRICS = NullMetrics()


class InMemoryMetrics:
    """Keeps every observation, and refuses what the metric catalogue does not allow; implements `ports.Metrics`."""

    def __init__(self) -> None:
        self.counted: dict[Metric, Counter[Labels]] = defaultdict(Counter)
        self.observed: dict[Metric, dict[Labels, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.gauges: dict[Metric, dict[Labels, float]] = defaultdict(dict)

    def count(self, metric: Metric, by: float = 1, **labels: str) -> None:
        self.counted[metric][_check(metric, "counter", labels)] += by  # type: ignore[assignment]

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        self.observed[metric][_check(metric, "histogram", labels)].append(value)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        self.gauges[metric][_check(metric, "gauge", labels)] = value

    def flush(self) -> None:
        """Do nothing: all of it stays here."""

    def of(self, metric: Metric) -> dict[Labels | str, float]:
        """A counter's or a gauge's values, or how often a histogram was observed.

        The keys are the labels; of a metric with one label, that label's value.
        """
        observed = {labels: float(len(values)) for labels, values in self.observed[metric].items()}
        values: dict[Labels, float] = {**self.counted[metric], **observed, **self.gauges[metric]}
        return {labels[0][1] if len(labels) == 1 else labels: value for labels, value in values.items()}


@contextmanager
def measure_call(metrics: Metrics, store: str, answers: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """Measure one call in the block; errors of the types `answers` count as ok.

    A cancelled call is not counted.
    """
    begun, outcome = time.monotonic(), "ok"
    try:
        yield
    except asyncio.CancelledError:
        outcome = ""
        raise
    except BaseException as error:
        outcome = "ok" if isinstance(error, answers) else "error"
        raise
    finally:
        if outcome:
            metrics.count(STORE_CALLS, store=store, outcome=outcome)
            metrics.observe(STORE_S, time.monotonic() - begun, store=store)


class LoopLoad:
    """How busy an event loop is, and how much later than planned it does things.

    The lag alone says little: where a message waits for a core in each of five processes, no loop lags by much.
    """

    def __init__(self) -> None:
        self.busy = 0.0
        """The share of the last second or two, 0-1, in which the loop worked or waited for a core."""
        self.worked = 0.0
        """The share in which it worked."""

    async def measure(self, for_s: float) -> float:
        """Measure the loop for `for_s` seconds, and return the worst lag."""
        clock = asyncio.get_running_loop().time
        begun, (worked_s, waited_s) = clock(), _thread_times_s()
        until, worst_lag_s = begun + for_s, 0.0
        while begun < until:
            await asyncio.sleep(SAMPLE_S)
            now, (now_worked_s, now_waited_s) = clock(), _thread_times_s()
            passed_s = now - begun
            worst_lag_s = max(worst_lag_s, passed_s - SAMPLE_S)
            worked = min(1.0, (now_worked_s - worked_s) / passed_s)
            busy = min(1.0, worked + (now_waited_s - waited_s) / passed_s)
            self.worked += WEIGHT * (worked - self.worked)
            self.busy += WEIGHT * (busy - self.busy)
            begun, worked_s, waited_s = now, now_worked_s, now_waited_s
        return worst_lag_s


def _thread_times_s() -> tuple[float, float]:
    """Return the seconds that this thread has worked and, on Linux, waited for a core."""
    try:
        worked, waited, _ = Path(f"/proc/self/task/{get_native_id()}/schedstat").read_bytes().split()
        return int(worked) / 1e9, int(waited) / 1e9
    except (OSError, ValueError):
        return time.thread_time(), 0.0


async def report_process_metrics(
    metrics: Metrics, breakers: Callable[[], Mapping[str, str]] = dict, loop_load: LoopLoad | None = None
) -> None:
    """Report CPU time, memory, event loop lag and circuit breakers every `REPORT_EVERY_S`, for ever.

    `breakers` returns the state of each dependency's breaker. The loop is measured with `loop_load`.
    """
    used_s, lag_s, loop_load = 0.0, 0.0, loop_load or LoopLoad()
    while True:
        now_s = time.process_time()
        spent_s, used_s = now_s - used_s, now_s
        for report in (
            partial(metrics.count, CPU_S, spent_s),
            partial(metrics.set, LOOP_LAG_S, lag_s),
            partial(metrics.set, LOOP_BUSY, loop_load.busy),
            partial(_report_memory, metrics),
            partial(_report_breakers, metrics, breakers),
        ):
            _try(report)
        try:
            lag_s = await loop_load.measure(REPORT_EVERY_S)
        finally:
            _try(metrics.flush)


def _try(report: Callable[[], None]) -> None:
    """One metric that fails must neither stop the others nor end the loop."""
    try:
        report()
    except Exception:
        logger.exception("process_metric_failed")


def _report_memory(metrics: Metrics) -> None:
    """Report the resident memory, where the system shows it."""
    if STATM.exists():
        metrics.set(RESIDENT_BYTES, int(STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize())


def _report_breakers(metrics: Metrics, breakers: Callable[[], Mapping[str, str]]) -> None:
    for dependency, state in breakers().items():
        _try(partial(_report_breaker, metrics, dependency, state))


def _report_breaker(metrics: Metrics, dependency: str, state: str) -> None:
    metrics.set(BREAKER_STATE, BREAKER_STATES[state], dependency=dependency)


def _check(metric: Metric, kind: MetricKind, labels: dict[str, str]) -> Labels:
    """The labels in the catalogue's order.

    Raises:
        ValueError: the metric is of another kind, or has other labels.
    """
    if metric.kind != kind or set(labels) != set(metric.labels):
        raise ValueError(f"{metric.name} is a {metric.kind} of {metric.labels}, not a {kind} of {tuple(labels)}")
    return tuple((label, labels[label]) for label in metric.labels)
