"""A limit of concurrent work that follows the lag of the event loops.

Work that waits costs memory only, so that many turns may be in flight. Work that computes makes event loops lag, and
then more of it at once only makes all of it slower. The limit begins at its ceiling. It falls by a tenth, from what is
in use, while the lag is high, and rises by a tenth while it is low: with a fixed step it would take minutes to find a
thousand free places.
"""

from __future__ import annotations

from dataclasses import dataclass

HIGH_LAG_S, LOW_LAG_S = 0.2, 0.1
"""A turn passes a loop about eight times, so that a lag of 0.2 s makes it 1.6 s longer."""
STEP = 0.1


@dataclass(slots=True)
class AdaptiveLimit:
    """How many turns may be in flight."""

    value: int | None = None
    """None before the first update."""

    def update(self, lag_s: float, in_use: int, floor: int, ceiling: int) -> int:
        """Return the new limit, between `floor` and `ceiling`, for the lag of the last second."""
        value = ceiling if self.value is None else self.value
        if lag_s > HIGH_LAG_S:
            value = int(min(value, in_use) * (1 - STEP))
        elif lag_s < LOW_LAG_S:
            value += max(1, int(value * STEP))
        self.value = min(max(value, floor), ceiling)
        return self.value
