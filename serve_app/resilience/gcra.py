"""Rate limits by GCRA, the generic cell rate algorithm (ITU-T I.371).

The state of a limit is one time: the moment until which it is used up. Taking from the limit moves that time on by a
cost, starting from now at the earliest. It may run ahead of now by the tolerance, which is the burst. All times are
whole microseconds, so that sums are exact, also in Lua, whose numbers are doubles.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MINUTE_US = 60_000_000
SECOND_US = 1_000_000
MAX_US = 2**51
"""Seventy years; a sum of it and the present is still exact."""
MIN_COST_US = 1
"""What must be free where the cost is known only afterwards."""


@dataclass(frozen=True, slots=True)
class GcraLimit:
    """A rate per minute and a burst."""

    per_minute: float
    burst: int | None = None
    """None is a minute's worth."""

    def cost_us(self, units: int = 1) -> int:
        """By how much so many units use the limit up."""
        return max(1, round(min(MAX_US, units * MINUTE_US / self.per_minute)))

    @property
    def burst_units(self) -> int:
        """The units that are free after a long pause."""
        return self.burst or max(1, math.floor(self.per_minute))

    @property
    def tolerance_us(self) -> int:
        """How far ahead of now units that are taken one by one may go."""
        return min(MAX_US, self.burst_units * self.cost_us())

    @property
    def tolerance_of_sum_us(self) -> int:
        """The same for many units taken together: one may cost less than a microsecond."""
        return self.cost_us(self.burst_units)


class LocalRateLimiter:
    """One limit for each key, in this process; remembers the latest `max_keys` keys."""

    def __init__(self, limit: GcraLimit, max_keys: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._max_keys = max_keys
        self._clock = clock
        self._used_until_us: OrderedDict[str, int] = OrderedDict()

    def take(self, key: str) -> float:
        """Take one unit and return 0; if none is free, the seconds until one is."""
        now_us = round(self._clock() * SECOND_US)
        used_us = max(self._used_until_us.get(key, now_us), now_us) + self._limit.cost_us()
        wait_us = used_us - now_us - self._limit.tolerance_us
        if wait_us > 0:
            return wait_us / SECOND_US
        self._used_until_us[key] = used_us
        self._used_until_us.move_to_end(key)
        if len(self._used_until_us) > self._max_keys:
            self._used_until_us.popitem(last=False)
        return 0.0
