"""What does a process tell of itself, again and again?

Ray forgets a gauge that was not set for two of its reports, 20 s; a counter of a process stays. So the state of
breakers is told here too, as it is at that moment.
"""

from __future__ import annotations

import asyncio
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING

from serve_app.observability.catalogue import BREAKER_STATE, BREAKER_STATES, CPU_S, LOOP_LAG_S, RESIDENT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serve_app.ports import Metrics

EVERY_S = 5.0
LOOK_S = 0.25
"""A loop that stands still for longer than this is seen for certain; twenty timers cost a hundredth of a percent."""
STATM = Path("/proc/self/statm")


def no_breakers() -> Mapping[str, str]:
    """For a process that calls nobody."""
    return {}


async def beat(metrics: Metrics, breakers: Callable[[], Mapping[str, str]] = no_breakers) -> None:
    """Tell what the process uses and how its breakers stand, by their dependencies, every `EVERY_S` for ever."""
    used_s, lag_s = 0.0, 0.0
    while True:
        now_s = time.process_time()
        metrics.count(CPU_S, now_s - used_s)
        used_s = now_s
        metrics.set(LOOP_LAG_S, lag_s)
        if (taken := resident_bytes()) is not None:
            metrics.set(RESIDENT_BYTES, taken)
        for dependency, state in breakers().items():
            metrics.set(BREAKER_STATE, BREAKER_STATES[state], dependency=dependency)
        try:
            lag_s = await _worst_lag_s(EVERY_S)
        finally:
            metrics.hand_over()


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
