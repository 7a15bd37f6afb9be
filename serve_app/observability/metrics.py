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
from typing import TYPE_CHECKING

from serve_app.observability.metric_catalogue import (
    BREAKER_STATE,
    BREAKER_STATES,
    CPU_S,
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
LAG_SAMPLE_S = 0.25
"""A longer standstill of the event loop is always seen; twenty timers cost a hundredth of a percent of a core."""
LAG_WEIGHT = 0.2
"""Of the latest sample in the mean lag, which follows a change within a second or two."""
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


class LoopLag:
    """The lag of an event loop: how much later than planned it does things."""

    def __init__(self) -> None:
        self.mean_s = 0.0
        """Of the last second or two."""

    async def measure(self, for_s: float) -> float:
        """Measure the lag for `for_s` seconds, and return the worst."""
        clock = asyncio.get_running_loop().time
        until, worst_s = clock() + for_s, 0.0
        while (begun := clock()) < until:
            await asyncio.sleep(LAG_SAMPLE_S)
            lag_s = max(0.0, clock() - begun - LAG_SAMPLE_S)
            worst_s = max(worst_s, lag_s)
            self.mean_s += LAG_WEIGHT * (lag_s - self.mean_s)
        return worst_s


async def report_process_metrics(
    metrics: Metrics, breakers: Callable[[], Mapping[str, str]] = dict, loop_lag: LoopLag | None = None
) -> None:
    """Report CPU time, memory, event loop lag and circuit breakers every `REPORT_EVERY_S`, for ever.

    `breakers` returns the state of each dependency's breaker. The lag is measured with `loop_lag`.
    """
    used_s, lag_s, loop_lag = 0.0, 0.0, loop_lag or LoopLag()
    while True:
        now_s = time.process_time()
        spent_s, used_s = now_s - used_s, now_s
        for report in (
            partial(metrics.count, CPU_S, spent_s),
            partial(metrics.set, LOOP_LAG_S, lag_s),
            partial(_report_memory, metrics),
            partial(_report_breakers, metrics, breakers),
        ):
            _try(report)
        try:
            lag_s = await loop_lag.measure(REPORT_EVERY_S)
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
