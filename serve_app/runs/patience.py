"""How long is a Redis that does not answer waited for?"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from serve_app.errors import StoreCorrupt, StoreUnavailable
from serve_app.resilience.retry import outlast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

T = TypeVar("T")
logger = logging.getLogger(__name__)

MOST_S = 3.0
"""An embedded Redis is back within a second, also under load."""
AWAY_S = 0.25
"""For a try while it is known to be away: far above a healthy server's milliseconds, and little for a turn."""


class Patience:
    """One for all runs of a process: what one has waited for in vain, the next does not wait for again."""

    def __init__(self, most_s: float = MOST_S) -> None:
        self._most_s = most_s
        self._away_since: float | None = None

    @property
    def away(self) -> bool:
        """Whether Redis has been waited for in vain."""
        return self._away_since is not None and self._left_s() <= 0

    async def outlast(self, call: Callable[[], Awaitable[T]], at_most_s: float = MOST_S) -> T:
        """What `call` returns, tried again while Redis is away for a moment; at least once.

        Raises:
            StoreUnavailable: it has been away for longer.
        """
        patience_s = max(0.0, min(self._left_s(), at_most_s))
        with self._noting():
            try:
                async with asyncio.timeout(max(AWAY_S, patience_s)):
                    return await outlast(call, patience_s, StoreUnavailable)
            except TimeoutError:
                raise StoreUnavailable("Redis did not answer") from None

    async def once(self, call: Callable[[], Awaitable[T]]) -> T:
        """What `call` returns, tried once and for as long as it takes.

        Raises:
            StoreUnavailable: Redis is away.
        """
        with self._noting():
            return await call()

    def _left_s(self) -> float:
        """Seconds that Redis is still waited for."""
        if self._away_since is None:
            return self._most_s
        return self._away_since + self._most_s - asyncio.get_running_loop().time()

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Remember whether the block finds Redis away, and since when; a corrupt key says that it is there."""
        begun = asyncio.get_running_loop().time()
        try:
            yield
        except StoreCorrupt:
            raise
        except StoreUnavailable as error:
            if self._away_since is None:
                self._away_since = begun
                logger.warning("redis_away", extra={"error": error.message})
            raise
        if self._away_since is not None:
            away_s = asyncio.get_running_loop().time() - self._away_since
            self._away_since = None
            logger.warning("redis_back", extra={"away_s": round(away_s, 1)})
