"""Metrics of a process: CPU time, memory, event loop lag, circuit breakers.

They are reported again and again: Ray drops a gauge that was not set for 20 s (two of its reports).
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from serve_app.observability.metric_catalogue import BREAKER_STATE, BREAKER_STATES, CPU_S, LOOP_LAG_S, RESIDENT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serve_app.ports import Metrics

logger = logging.getLogger(__name__)

EVERY_S = 5.0
LAG_SAMPLE_S = 0.25
"""A longer standstill of the event loop is always seen; twenty timers cost a hundredth of a percent of a core."""
STATM = Path("/proc/self/statm")


def no_breakers() -> Mapping[str, str]:
    """The breakers of a process that calls no dependency."""
    return {}


async def report_process_metrics(metrics: Metrics, breakers: Callable[[], Mapping[str, str]] = no_breakers) -> None:
    """Report the metrics every `EVERY_S`, for ever.

    `breakers` returns the state of each dependency's breaker.
    """
    used_s, lag_s = 0.0, 0.0
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
            lag_s = await _worst_lag_s(EVERY_S)
        finally:
            _try(metrics.flush)


def resident_bytes() -> int | None:
    """The resident memory of this process; None where the system does not say."""
    try:
        return int(STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return None


def _try(report: Callable[[], None]) -> None:
    """One metric that fails must neither stop the others nor end the loop."""
    try:
        report()
    except Exception:
        logger.exception("process_metric_failed")


def _report_memory(metrics: Metrics) -> None:
    if (taken := resident_bytes()) is not None:
        metrics.set(RESIDENT_BYTES, taken)


def _report_breakers(metrics: Metrics, breakers: Callable[[], Mapping[str, str]]) -> None:
    for dependency, state in breakers().items():
        _try(partial(_report_breaker, metrics, dependency, state))


def _report_breaker(metrics: Metrics, dependency: str, state: str) -> None:
    metrics.set(BREAKER_STATE, BREAKER_STATES[state], dependency=dependency)


async def _worst_lag_s(for_s: float) -> float:
    """The worst delay of the event loop within the next `for_s` seconds."""
    clock = asyncio.get_running_loop().time
    until, worst_s = clock() + for_s, 0.0
    while (begun := clock()) < until:
        await asyncio.sleep(LAG_SAMPLE_S)
        worst_s = max(worst_s, clock() - begun - LAG_SAMPLE_S)
    return worst_s
