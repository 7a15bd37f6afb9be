"""A circuit breaker as a value, and the guard that makes calls through it.

A closed breaker lets every call through and counts failures in a row. At `BreakerPolicy.failures` it opens and refuses
all calls for `BreakerPolicy.cool_down_s`. Then it is half-open and admits one call as a probe: the probe's success
closes the breaker, its failure opens it anew. A probe without an outcome blocks others for one cool-down at most. Times
are seconds of any steady clock.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from serve_app.errors import StoreCorrupt, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BreakerState = Literal["closed", "open", "half_open"]

E = TypeVar("E", bound=Unavailable)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens, and for how long."""

    failures: int
    cool_down_s: float


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """The state of one dependency's breaker; every step returns the next state."""

    policy: BreakerPolicy
    failures: int = 0
    """In a row."""
    opened_at: float | None = None
    probed_at: float | None = None

    def state(self, now: float) -> BreakerState:
        """Return the breaker's state."""
        if self.opened_at is None:
            return "closed"
        return "half_open" if now >= self.opened_at + self.policy.cool_down_s else "open"

    def admits(self, now: float) -> bool:
        """Return whether a call may go through; whoever makes it calls `on_call` first."""
        state = self.state(now)
        if state == "half_open":
            return self.probed_at is None or now >= self.probed_at + self.policy.cool_down_s
        return state == "closed"

    def retry_after_s(self, now: float) -> float:
        """Return the seconds until the next call may be admitted."""
        if self.opened_at is None:
            return 0.0
        since = self.opened_at if self.probed_at is None else max(self.opened_at, self.probed_at)
        return max(0.0, since + self.policy.cool_down_s - now)

    def on_call(self, now: float) -> CircuitBreaker:
        """Record that a call goes through."""
        return replace(self, probed_at=now) if self.state(now) == "half_open" else self

    def on_cancel(self, called_at: float) -> CircuitBreaker:
        """Record that the call made at `called_at` was cancelled; a probe may then be repeated."""
        return replace(self, probed_at=None) if self.probed_at == called_at else self

    def on_success(self) -> CircuitBreaker:
        """Record a success; that of a call made before the breaker opened closes it, too."""
        return CircuitBreaker(self.policy)

    def on_failure(self, now: float) -> CircuitBreaker:
        """Record a failure; failures that arrive while the breaker is open are ignored."""
        if self.state(now) == "open":
            return self
        failures = self.failures + 1
        if self.opened_at is None and failures < self.policy.failures:
            return replace(self, failures=failures)
        return CircuitBreaker(self.policy, failures, opened_at=now)


class GuardedCalls:
    """Calls of one dependency through its breaker, which each process has for itself."""

    def __init__(self, name: str, policy: BreakerPolicy, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._breaker = CircuitBreaker(policy)
        self._clock = clock

    @property
    def state(self) -> BreakerState:
        """The breaker's state now."""
        return self._breaker.state(self._clock())

    @property
    def admits(self) -> bool:
        """Whether a call would be let through now."""
        return self._breaker.admits(self._clock())

    @property
    def retry_after_s(self) -> float:
        """Seconds until the next call may be let through."""
        return self._breaker.retry_after_s(self._clock())

    @contextmanager
    def guard(self, refusal: type[Unavailable], failures: tuple[type[BaseException], ...]) -> Iterator[None]:
        """Make one call in the block; only errors of the types `failures` count as failures.

        A cancellation does not count. Nor does `StoreCorrupt`: a dependency that says so has answered.

        Raises:
            Unavailable: of the type `refusal`, because the breaker is open; no call was made.
        """
        now = self._clock()
        if not self._breaker.admits(now):
            raise self.make_refusal(refusal)
        self._breaker = self._breaker.on_call(now)
        try:
            yield
        except StoreCorrupt:
            self._update(self._breaker.on_success())
            raise
        except failures:
            self._update(self._breaker.on_failure(self._clock()))
            raise
        except BaseException:
            self._breaker = self._breaker.on_cancel(now)
            raise
        self._update(self._breaker.on_success())

    def make_refusal(self, kind: type[E]) -> E:
        """Return the error for a call that is not let through."""
        return kind(f"{self.name} has failed repeatedly; its circuit breaker is open", self.retry_after_s)

    def _update(self, after: CircuitBreaker) -> None:
        """Take the next state, and log whether the breaker opens or closes."""
        was_open, is_open = self._breaker.opened_at is not None, after.opened_at is not None
        self._breaker = after
        if is_open and not was_open:
            policy = after.policy
            fields = {"dependency": self.name, "failures": policy.failures, "cool_down_s": policy.cool_down_s}
            logger.warning("breaker_opened", extra=fields)
        elif was_open and not is_open:
            logger.warning("breaker_closed", extra={"dependency": self.name})
