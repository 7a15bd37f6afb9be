"""How do many wait for new entries of Redis streams by one blocking read?"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from serve_app.errors import StoreUnavailable
from serve_app.stores.redis import translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

PAUSE_S = 0.1
"""After Redis did not answer."""

Row = tuple[str, "Mapping[str, str]"]
"""A stream's entry: its id and its fields."""


class Tail:
    """New entries of streams, for all of this process that wait for some; one command at a time asks for them all.

    `block_s` is how long it blocks, below the client's time-out; a stream that is added meanwhile waits for its end.
    """

    def __init__(self, redis: Redis, block_s: float) -> None:
        self._redis: Any = redis
        self._block_ms = int(block_s * 1000)
        self._inboxes: dict[tuple[str, ...], set[asyncio.Queue[list[Row]]]] = {}
        self._seen: dict[str, str] = {}
        self._wanted = asyncio.Event()

    @contextmanager
    def following(self, *streams: str, after: str) -> Iterator[asyncio.Queue[list[Row]]]:
        """The entries of these streams, those that came at one moment together.

        Where others follow the same streams, from where they are now on; else after the id `after`.
        """
        inbox: asyncio.Queue[list[Row]] = asyncio.Queue()
        if streams not in self._inboxes:
            self._inboxes[streams] = set()
            self._seen.update(dict.fromkeys(streams, after))
        self._inboxes[streams].add(inbox)
        self._wanted.set()
        try:
            yield inbox
        finally:
            self._inboxes[streams].discard(inbox)
            if not self._inboxes[streams]:
                del self._inboxes[streams]
                for stream in streams:
                    del self._seen[stream]

    async def go_on(self) -> None:
        """Read for whoever waits, for ever."""
        while True:
            await self._wanted.wait()
            if not self._seen:
                self._wanted.clear()
                continue
            try:
                with translated():
                    read = await self._redis.xread(dict(self._seen), block=self._block_ms)
            except StoreUnavailable as error:
                logger.debug("streams_not_read", extra={"error": error.message})
                await asyncio.sleep(PAUSE_S)
                continue
            self._deliver({stream: rows for stream, rows in read if stream in self._seen})

    def _deliver(self, read: Mapping[str, list[Row]]) -> None:
        self._seen.update({stream: rows[-1][0] for stream, rows in read.items()})
        for streams, inboxes in self._inboxes.items():
            rows = [row for stream in streams for row in read.get(stream, [])]
            if rows:
                for inbox in inboxes:
                    inbox.put_nowait(rows)
