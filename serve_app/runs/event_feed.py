"""How do a run's events reach those who follow it in the process that runs it?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from serve_app.values import RunEvent


class EventFeed:
    """A run's events from the first on, for any number of followers; whoever adds one never waits."""

    def __init__(self) -> None:
        self._events: list[RunEvent] = []
        self._closed = False
        self._news = asyncio.Event()

    def add(self, events: Iterable[RunEvent]) -> None:
        """Add the next events."""
        self._events.extend(events)
        self._wake()

    @property
    def last(self) -> RunEvent | None:
        """The latest event."""
        return self._events[-1] if self._events else None

    def close(self) -> None:
        """Add nothing more: the run is over, or goes on elsewhere."""
        self._closed = True
        self._wake()

    async def events(self, after: int, for_s: float) -> AsyncIterator[RunEvent]:
        """The events after the event `after`: until the last, until the feed is closed, or for `for_s` seconds."""
        position = 0
        until = asyncio.get_running_loop().time() + for_s
        while True:
            while position < len(self._events):
                event = self._events[position]
                position += 1
                if event.id > after:
                    yield event
            if self._closed or not await _happens(self._news, until):
                return

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


async def _happens(news: asyncio.Event, until: float) -> bool:
    try:
        async with asyncio.timeout_at(until):
            return await news.wait()
    except TimeoutError:
        return False
