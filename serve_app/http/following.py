"""How is a run followed on behalf of one client?"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from serve_app.values import RunEvent

CLOSE_S = 5.0
"""For a generator to close: it has a remote call to cancel at most."""


class Following:
    """A run's events, read in a task of their own: a pause for a keep-alive must not cancel the reading."""

    def __init__(self, events: AsyncGenerator[RunEvent, None]) -> None:
        self._inbox: asyncio.Queue[RunEvent | None] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read(events))
        self.ended = False

    async def next(self, timeout_s: float) -> RunEvent | None:
        """The next event; None when there was none for `timeout_s` seconds, or when they have `ended`.

        Raises:
            Exception: whatever the reading failed with.
        """
        try:
            async with asyncio.timeout(timeout_s):
                event = await self._inbox.get()
        except TimeoutError:
            return None
        if event is None:
            await self._reading
            self.ended = True
        return event

    async def close(self) -> None:
        """Stop following, and close the generator."""
        self._reading.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self, events: AsyncGenerator[RunEvent, None]) -> None:
        try:
            async with aclosing(events):
                async for event in events:
                    self._inbox.put_nowait(event)
        finally:
            self._inbox.put_nowait(None)
