"""The availability of Redis, as one process and its client find it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from serve_app.errors import StoreCorrupt, StoreUnavailable
from serve_app.resilience.retry import retry_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

T = TypeVar("T")
logger = logging.getLogger(__name__)

MAX_WAIT_S = 3.0
"""An embedded Redis is back within a second, also under load."""
AWAY_TIMEOUT_S = 0.25
"""For an attempt while Redis is known to be away: far above a healthy server's milliseconds, and little for a turn."""
PROBE_EVERY_S = 1.0
"""While Redis is away, one caller that can do without it tries it this often."""


class RedisAvailability:
    """Whether Redis answers, and since when it does not.

    Each client of a process has one object, which all its callers share: if one has waited in vain, the next does not
    wait again. The log has two events for an outage: one for its start, one for its end.
    """

    def __init__(self, max_wait_s: float = MAX_WAIT_S) -> None:
        self._max_wait_s = max_wait_s
        self._away_since: float | None = None
        self._failures = 0
        """In a row."""
        self._probe_from = 0.0

    @property
    def is_away(self) -> bool:
        """Whether Redis has been waited for in vain."""
        return self.is_failing and self._left_s() <= 0

    @property
    def is_failing(self) -> bool:
        """Whether the latest call failed."""
        return self._away_since is not None

    def admits(self, failures: int = 1) -> bool:
        """Return whether a caller that can do without Redis should call it now.

        True until so many calls in a row have failed, and then for one caller in each `PROBE_EVERY_S`.
        """
        now = asyncio.get_running_loop().time()
        if self._failures >= failures and now < self._probe_from:
            return False
        self._probe_from = now + PROBE_EVERY_S
        return True

    async def call_until(self, call: Callable[[], Awaitable[T]], max_wait_s: float = MAX_WAIT_S) -> T:
        """Call at least once; while Redis does not answer, again for `max_wait_s`.

        Raises:
            StoreUnavailable: Redis has been away for longer.
        """
        wait_s = max(0.0, min(self._left_s(), max_wait_s))
        return await self.call_once(lambda: retry_until(call, wait_s, StoreUnavailable), max(AWAY_TIMEOUT_S, wait_s))

    async def call_once(self, call: Callable[[], Awaitable[T]], timeout_s: float | None = None) -> T:
        """Call once; with None, only the client's own time-out applies.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        with self.observe_call():
            try:
                async with asyncio.timeout(timeout_s):
                    return await call()
            except TimeoutError:
                raise StoreUnavailable("Redis did not answer") from None

    @contextmanager
    def observe_call(self) -> Iterator[None]:
        """Record whether Redis answers the call in the block; `StoreCorrupt` is an answer."""
        begun = asyncio.get_running_loop().time()
        try:
            yield
        except StoreCorrupt:
            self._record_answer()
            raise
        except StoreUnavailable as error:
            self._record_failure(begun, error)
            raise
        self._record_answer()

    def _left_s(self) -> float:
        """Return the seconds that Redis is still waited for."""
        if self._away_since is None:
            return self._max_wait_s
        return self._away_since + self._max_wait_s - asyncio.get_running_loop().time()

    def _record_failure(self, begun: float, error: StoreUnavailable) -> None:
        self._failures += 1
        self._probe_from = asyncio.get_running_loop().time() + PROBE_EVERY_S
        if self._away_since is None:
            self._away_since = begun
            logger.warning("redis_unavailable", extra={"error": error.message})

    def _record_answer(self) -> None:
        self._failures = 0
        if self._away_since is not None:
            away_s = asyncio.get_running_loop().time() - self._away_since
            self._away_since = None
            logger.warning("redis_available_again", extra={"away_s": round(away_s, 1)})
