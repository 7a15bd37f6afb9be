"""How do a run's steps reach the one who follows it?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from serve_app.values import Event, Token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from serve_app.values import EventData

BATCH_S = 0.025
"""Tokens that come within this time go out together: each message between processes costs more than a token."""


class Feed:
    """A run's steps in order; the run emits and never waits, the follower may leave."""

    def __init__(self) -> None:
        self._steps: asyncio.Queue[EventData] = asyncio.Queue()

    def emit(self, step: EventData) -> None:
        """Add a step; the one that is the run's last ends the feed."""
        self._steps.put_nowait(step)

    async def events(self) -> AsyncIterator[Event]:
        """The steps as numbered events: the first token at once, those after it in batches."""
        number = 0
        while True:
            for step in _merged([await self._steps.get(), *self._waiting()]):
                number += 1
                event = Event(id=number, data=step)
                yield event
                if event.last:
                    return
            if isinstance(step, Token):
                await asyncio.sleep(BATCH_S)

    def _waiting(self) -> list[EventData]:
        return [self._steps.get_nowait() for _ in range(self._steps.qsize())]


def _merged(steps: list[EventData]) -> list[EventData]:
    """The steps, neighbouring tokens as one; a restart begins a token of its own."""
    merged: list[EventData] = []
    for step in steps:
        before = merged[-1] if merged else None
        if isinstance(step, Token) and isinstance(before, Token) and not step.restart:
            merged[-1] = Token(text=before.text + step.text, restart=before.restart)
        else:
            merged.append(step)
    return merged
