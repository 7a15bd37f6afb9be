"""How much of an allowance does one turn take, and how far may one go ahead of it?

The generic cell rate algorithm (ITU-T I.371): all that is kept of an allowance is one time, up to which it is used up.
Taking from it moves the time on by a cost, from now at the earliest; it may be ahead of now by the tolerance at most,
which is the burst. Whole microseconds, so that sums are exact, also in Lua, whose numbers are doubles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MINUTE_US = 60_000_000
BOUND_US = 2**51
"""Seventy years; a sum of it and the present is still exact."""
ROOM_US = 1
"""What must be free where the cost is known only afterwards."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """So much per minute, and so much at once."""

    per_minute: float
    burst: int | None = None
    """None is a minute's worth."""

    def cost_us(self, units: int = 1) -> int:
        """By how much so many units use it up."""
        return max(1, round(min(BOUND_US, units * MINUTE_US / self.per_minute)))

    @property
    def at_once(self) -> int:
        """The units that are there after a long pause."""
        return self.burst or max(1, math.floor(self.per_minute))

    @property
    def tolerance_us(self) -> int:
        """How far ahead of now it may be used up, where units are taken one by one."""
        return min(BOUND_US, self.at_once * self.cost_us())

    @property
    def tolerance_of_sum_us(self) -> int:
        """The same, where many units are taken together: a unit may cost less than a microsecond."""
        return self.cost_us(self.at_once)
