"""What does a process tell of itself, again and again?

Ray forgets a gauge that was not set for two of its reports, 20 s; a counter of a process stays. So the state of
breakers is told here too, as it is at that moment.
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
LOOK_S = 0.25
"""A loop that stands still for longer than this is seen for certain; twenty timers cost a hundredth of a percent."""
STATM = Path("/proc/self/statm")


def no_breakers() -> Mapping[str, str]:
    """For a process that calls nobody."""
    return {}


async def report_process_metrics(metrics: Metrics, breakers: Callable[[], Mapping[str, str]] = no_breakers) -> None:
    """Tell what the process uses and how its breakers stand, by their dependencies, every `EVERY_S` for ever."""
    used_s, lag_s = 0.0, 0.0
    while True:
        now_s = time.process_time()
        spent_s, used_s = now_s - used_s, now_s
        for tell in (
            partial(metrics.count, CPU_S, spent_s),
            partial(metrics.set, LOOP_LAG_S, lag_s),
            partial(_tell_memory, metrics),
            partial(_tell_breakers, metrics, breakers),
        ):
            _try(tell)
        try:
            lag_s = await _worst_lag_s(EVERY_S)
        finally:
            _try(metrics.flush)


def _try(tell: Callable[[], None]) -> None:
    """What cannot be told must not keep the rest from being told, nor end the loop."""
    try:
        tell()
    except Exception:
        logger.exception("vitals_not_told")


def _tell_memory(metrics: Metrics) -> None:
    if (taken := resident_bytes()) is not None:
        metrics.set(RESIDENT_BYTES, taken)


def _tell_breakers(metrics: Metrics, breakers: Callable[[], Mapping[str, str]]) -> None:
    for dependency, state in breakers().items():
        _try(partial(_tell_breaker, metrics, dependency, state))


def _tell_breaker(metrics: Metrics, dependency: str, state: str) -> None:
    metrics.set(BREAKER_STATE, BREAKER_STATES[state], dependency=dependency)


def resident_bytes() -> int | None:
    """The memory of this process that is in RAM; None where the system does not tell."""
    try:
        return int(STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return None


async def _worst_lag_s(for_s: float) -> float:
    """How much later than asked the loop came back, at worst, within the next `for_s` seconds."""
    clock = asyncio.get_running_loop().time
    until, worst_s = clock() + for_s, 0.0
    while (begun := clock()) < until:
        await asyncio.sleep(LOOK_S)
        worst_s = max(worst_s, clock() - begun - LOOK_S)
    return worst_s
