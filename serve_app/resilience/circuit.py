"""How is a dependency asked through its breaker?"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from serve_app.errors import StoreCorrupt, Unavailable
from serve_app.resilience.breaker import Breaker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serve_app.resilience.breaker import Limit, State

E = TypeVar("E", bound=Unavailable)
logger = logging.getLogger(__name__)


class Circuit:
    """The breaker of one dependency in this process; no other process shares it: simple, and quick to learn."""

    def __init__(self, name: str, limit: Limit, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._breaker = Breaker(limit)
        self._clock = clock

    @property
    def state(self) -> State:
        """Where the breaker stands now."""
        return self._breaker.state(self._clock())

    @property
    def admits(self) -> bool:
        """Whether a call would be let through now."""
        return self._breaker.admits(self._clock())

    @contextmanager
    def passing(self, refusal: type[Unavailable], failures: tuple[type[BaseException], ...]) -> Iterator[None]:
        """Make one call in the block; only `failures` count against the dependency, a cancellation never does.

        Nor does what is corrupt in it: it has answered.

        Raises:
            Unavailable: `refusal`, because the breaker is open; nothing was asked.
        """
        now = self._clock()
        if not self._breaker.admits(now):
            raise self.refused(refusal)
        self._breaker = self._breaker.asked(now)
        try:
            yield
        except StoreCorrupt:
            self._become(self._breaker.succeeded())
            raise
        except failures:
            self._become(self._breaker.failed(self._clock()))
            raise
        except BaseException:
            self._breaker = self._breaker.unheard(now)
            raise
        self._become(self._breaker.succeeded())

    def _become(self, after: Breaker) -> None:
        """Take in what a call has taught; that the breaker opens, or closes, is told."""
        was_open, is_open = self._breaker.opened_at is not None, after.opened_at is not None
        self._breaker = after
        if is_open and not was_open:
            limit = after.limit
            told = {"dependency": self.name, "failures": limit.failures, "cool_down_s": limit.cool_down_s}
            logger.warning("breaker_opened", extra=told)
        elif was_open and not is_open:
            logger.warning("breaker_closed", extra={"dependency": self.name})

    def refused(self, refusal: type[E]) -> E:
        """What a call is told that is not let through."""
        return refusal(f"{self.name} has failed again and again; it is left alone for a while", self.retry_after_s)

    @property
    def retry_after_s(self) -> float:
        """Seconds until the next call may be let through."""
        return self._breaker.retry_after_s(self._clock())
