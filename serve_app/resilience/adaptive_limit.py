"""A limit of concurrent work that follows the load of the event loops.

Work that waits costs memory only, so that many turns may be in flight. Work that computes makes the loops busy. A loop
that never waits for a message has more messages than it can handle, and then more turns at once only make all of them
slower. The limit begins at its ceiling. It falls by a tenth, from what is in use, while a loop is that busy, and rises
by a tenth while none is: with a fixed step it would take minutes to find a thousand free places.
"""

from __future__ import annotations

from dataclasses import dataclass

HIGH_BUSY, LOW_BUSY = 0.95, 0.85
"""Up to 0.95 a loop catches up within milliseconds after each burst; between the two the limit stays."""
STEP = 0.1


@dataclass(slots=True)
class AdaptiveLimit:
    """How many turns may be in flight."""

    value: int | None = None
    """None before the first update."""

    def update(self, busy: float, in_use: int, floor: int, ceiling: int) -> int:
        """Return the new limit, between `floor` and `ceiling`, for the last second.

        `busy` is the share of it, 0-1, in which the busiest loop worked or waited for a core.
        """
        value = ceiling if self.value is None else self.value
        if busy > HIGH_BUSY:
            value = int(min(value, in_use) * (1 - STEP))
        elif busy < LOW_BUSY:
            value += max(1, int(value * STEP))
        self.value = min(max(value, floor), ceiling)
        return self.value
