"""The event feed of a run: publish and subscribe within a process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from serve_app.values import RunEvent


class EventFeed:
    """All events of a run, for any number of followers; adding one never waits."""

    def __init__(self) -> None:
        self._events: list[RunEvent] = []
        self._closed = False
        self._changed = asyncio.Event()

    def add(self, events: Iterable[RunEvent]) -> None:
        """Add the next events."""
        self._events.extend(events)
        self._wake()

    @property
    def last(self) -> RunEvent | None:
        """The latest event."""
        return self._events[-1] if self._events else None

    def close(self) -> None:
        """End the feed: the run is over, or goes on elsewhere."""
        self._closed = True
        self._wake()

    async def events(self, after: int, for_s: float) -> AsyncIterator[RunEvent]:
        """Yield the events after the event `after`.

        Ends with the last event, when the feed is closed, or after `for_s` seconds.
        """
        position = 0
        until = asyncio.get_running_loop().time() + for_s
        while True:
            while position < len(self._events):
                event = self._events[position]
                position += 1
                if event.id > after:
                    yield event
            if self._closed or not await _wait_until(self._changed, until):
                return

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _wait_until(changed: asyncio.Event, until: float) -> bool:
    try:
        async with asyncio.timeout_at(until):
            return await changed.wait()
    except TimeoutError:
        return False
