"""How do many wait for new entries of Redis streams by one blocking read?"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from serve_app.errors import StoreCorrupt, StoreUnavailable
from serve_app.stores.redis import translate_redis_errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

RETRY_PAUSE_S = 0.1
"""After Redis did not answer."""
RESUBSCRIBE_PAUSE_S = 1.0
"""After a key was found that is no stream."""

StreamEntry = tuple[str, "Mapping[str, str]"]
"""A stream's entry: its id and its fields."""


class StreamSubscription:
    """What one follower has not yet taken."""

    def __init__(self) -> None:
        self._news: asyncio.Queue[list[StreamEntry] | StoreCorrupt] = asyncio.Queue()

    def put(self, news: list[StreamEntry] | StoreCorrupt) -> None:
        """Give it entries, or the reason why there will be no more."""
        self._news.put_nowait(news)

    async def get(self) -> list[StreamEntry]:
        """The next entries, waited for.

        Raises:
            StoreCorrupt: one of the streams is none, and is read no longer.
        """
        news = await self._news.get()
        if isinstance(news, StoreCorrupt):
            raise news
        return news


class StreamReader:
    """New entries of streams, for all of this process that wait for some; one command at a time asks for them all.

    `block_s` is how long it blocks, below the client's time-out; a stream that is added meanwhile waits for its end.
    """

    def __init__(self, redis: Redis, block_s: float) -> None:
        self._redis: Any = redis
        self._block_ms = int(block_s * 1000)
        self._inboxes: dict[tuple[str, ...], set[StreamSubscription]] = {}
        self._seen: dict[str, str] = {}
        self._wanted = asyncio.Event()

    @contextmanager
    def follow(self, *streams: str, after: str) -> Iterator[StreamSubscription]:
        """The entries of these streams, those that came at one moment together.

        Where others follow the same streams, from where they are now on; else after the id `after`.
        """
        inbox = StreamSubscription()
        if streams not in self._inboxes:
            self._inboxes[streams] = set()
            self._seen.update(dict.fromkeys(streams, after))
        self._inboxes[streams].add(inbox)
        self._wanted.set()
        try:
            yield inbox
        finally:
            self._leave(streams, inbox)

    async def follow_forever(self, stream: str) -> AsyncIterator[StreamEntry]:
        """The stream's entries from its first one on, for ever; a key that is no stream is asked for again."""
        after = "0"
        while True:
            with self.follow(stream, after=after) as inbox, suppress(StoreCorrupt):
                while True:
                    for row in await inbox.get():
                        after = row[0]
                        yield row
            await asyncio.sleep(RESUBSCRIBE_PAUSE_S)

    async def read_forever(self) -> None:
        """Read for whoever waits, for ever; a key that is no stream costs its own followers only."""
        while True:
            await self._wanted.wait()
            if not self._seen:
                self._wanted.clear()
                continue
            try:
                await self._read()
            except StoreUnavailable as error:
                logger.debug("streams_not_read", extra={"error": error.message})
                await asyncio.sleep(RETRY_PAUSE_S)
            except Exception:
                logger.exception("streams_not_read")
                await asyncio.sleep(RETRY_PAUSE_S)

    async def _read(self) -> None:
        try:
            with translate_redis_errors():
                read = await self._redis.xread(dict(self._seen), block=self._block_ms)
        except StoreCorrupt:
            await self._sort_out()
            await asyncio.sleep(RETRY_PAUSE_S)
        else:
            self._deliver({stream: rows for stream, rows in read if stream in self._seen})

    async def _sort_out(self) -> None:
        """Read each stream by itself, and those no longer that are none."""
        for streams, inboxes in list(self._inboxes.items()):
            try:
                with translate_redis_errors():
                    for stream in streams:
                        await self._redis.xread({stream: self._seen.get(stream, "0")}, count=1)
            except StoreCorrupt as error:
                logger.exception("stream_unreadable", extra={"streams": list(streams)})
                for inbox in list(inboxes):
                    inbox.put(error)
                    self._leave(streams, inbox)

    def _leave(self, streams: tuple[str, ...], inbox: StreamSubscription) -> None:
        """Have it follow no longer; once is enough."""
        inboxes = self._inboxes.get(streams, set())
        inboxes.discard(inbox)
        if streams in self._inboxes and not inboxes:
            del self._inboxes[streams]
            for stream in streams:
                del self._seen[stream]

    def _deliver(self, read: Mapping[str, list[StreamEntry]]) -> None:
        self._seen.update({stream: rows[-1][0] for stream, rows in read.items()})
        for streams, inboxes in self._inboxes.items():
            rows = [row for stream in streams for row in read.get(stream, [])]
            if rows:
                for inbox in inboxes:
                    inbox.put(rows)
