"""How long is a Redis that does not answer waited for?"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

from serve_app.errors import StoreUnavailable
from serve_app.resilience.retry import outlast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
logger = logging.getLogger(__name__)

MOST_S = 3.0
"""An embedded Redis is back within a second, also under load."""


class Patience:
    """One for all runs of a process: what one has waited for in vain, the next does not wait for again."""

    def __init__(self, most_s: float = MOST_S) -> None:
        self._most_s = most_s
        self._away_since: float | None = None

    async def outlast(self, call: Callable[[], Awaitable[T]], at_most_s: float = MOST_S) -> T:
        """What `call` returns, tried again while Redis is away for a moment; at least once.

        Raises:
            StoreUnavailable: it has been away for longer.
        """
        begun = asyncio.get_running_loop().time()
        waited_s = 0.0 if self._away_since is None else begun - self._away_since
        try:
            answer = await outlast(call, max(0.0, min(self._most_s - waited_s, at_most_s)), StoreUnavailable)
        except StoreUnavailable as error:
            if self._away_since is None:
                self._away_since = begun
                logger.warning("redis_away", extra={"error": error.message})
            raise
        if self._away_since is not None:
            away_s = asyncio.get_running_loop().time() - self._away_since
            self._away_since = None
            logger.warning("redis_back", extra={"away_s": round(away_s, 1)})
        return answer
