"""How fast do turns end, and when is it worth coming back?"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

REMEMBERED = 256
"""Ends that are remembered: half a minute of eight a second, and two seconds of a hundred."""
FRESH_S = 30.0
"""How long an end says something of the pace."""
SOONEST_S, LATEST_S = 1.0, 60.0
UNKNOWN_S = 5.0
"""Where nothing has ended of late."""


@dataclass(slots=True)
class Pace:
    """The latest ends, by any steady clock."""

    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED), init=False)

    def ended(self, now: float) -> None:
        """A turn has ended."""
        self._ends.append(now)

    def per_second(self, now: float) -> float:
        """Turns that end in a second; 0 where none has of late."""
        while self._ends and self._ends[0] < now - FRESH_S:
            self._ends.popleft()
        if len(self._ends) < 2:  # noqa: PLR2004 - a pace takes two
            return 0.0
        return (len(self._ends) - 1) / max(now - self._ends[0], 0.001)

    def retry_after_s(self, waiting: int, now: float) -> float:
        """Seconds until those who wait have been served, and the next one has room."""
        pace = self.per_second(now)
        return min(LATEST_S, max(SOONEST_S, (waiting + 1) / pace)) if pace else UNKNOWN_S
