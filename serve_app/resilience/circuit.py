"""How is a dependency asked through its breaker?"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from serve_app.resilience.breaker import Breaker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serve_app.errors import Unavailable
    from serve_app.resilience.breaker import Limit, State


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

        Raises:
            Unavailable: `refusal`, because the breaker is open; nothing was asked.
        """
        now = self._clock()
        if not self._breaker.admits(now):
            raise refusal(f"{self.name} has failed again and again; it is left alone for a while", self.retry_after_s)
        self._breaker = self._breaker.asked(now)
        try:
            yield
        except failures:
            self._breaker = self._breaker.failed(self._clock())
            raise
        self._breaker = self._breaker.succeeded()

    @property
    def retry_after_s(self) -> float:
        """Seconds until the next call may be let through."""
        return self._breaker.retry_after_s(self._clock())
