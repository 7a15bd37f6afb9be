"""Is a dependency worth asking? A circuit breaker, as a value.

Closed, it lets every call through and counts failures in a row; at `Limit.failures` it opens, and refuses all calls
for `Limit.cool_down_s`. Then it is half-open and admits one call as a probe: its success closes the breaker, and its
failure opens it anew. A probe that is never heard of counts for as long as a cool-down. Times are seconds of any steady
clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Limit:
    """When a breaker opens, and for how long."""

    failures: int
    cool_down_s: float


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is known of a dependency; every step gives the next value."""

    limit: Limit
    failures: int = 0
    """In a row."""
    opened_at: float | None = None
    probed_at: float | None = None

    def state(self, now: float) -> State:
        """Where the breaker stands."""
        if self.opened_at is None:
            return "closed"
        return "half_open" if now >= self.opened_at + self.limit.cool_down_s else "open"

    def admits(self, now: float) -> bool:
        """Whether a call may go through; whoever makes it says `asked` at once."""
        state = self.state(now)
        if state == "half_open":
            return self.probed_at is None or now >= self.probed_at + self.limit.cool_down_s
        return state == "closed"

    def retry_after_s(self, now: float) -> float:
        """Seconds until the next call may be admitted."""
        if self.opened_at is None:
            return 0.0
        since = self.opened_at if self.probed_at is None else max(self.opened_at, self.probed_at)
        return max(0.0, since + self.limit.cool_down_s - now)

    def asked(self, now: float) -> Breaker:
        """After a call was let through."""
        return replace(self, probed_at=now) if self.state(now) == "half_open" else self

    def succeeded(self) -> Breaker:
        """After a call that went well; one that was made before the breaker opened closes it, too."""
        return Breaker(self.limit)

    def failed(self, now: float) -> Breaker:
        """After a call that failed; while the breaker is open, one of before it opened changes nothing."""
        if self.state(now) == "open":
            return self
        failures = self.failures + 1
        if self.opened_at is None and failures < self.limit.failures:
            return replace(self, failures=failures)
        return Breaker(self.limit, failures, opened_at=now)
