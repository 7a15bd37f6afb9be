"""Reads Redis streams for many subscribers by one blocking command."""

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
"""After a key turned out to be no stream."""

StreamEntry = tuple[str, "Mapping[str, str]"]
"""A stream's entry: its id and its fields."""


class StreamSubscription:
    """The entries that one subscriber has not yet read."""

    def __init__(self) -> None:
        self._news: asyncio.Queue[list[StreamEntry] | StoreCorrupt] = asyncio.Queue()

    def put(self, news: list[StreamEntry] | StoreCorrupt) -> None:
        """Add entries, or the error that ends the subscription."""
        self._news.put_nowait(news)

    async def get(self) -> list[StreamEntry]:
        """Wait for the next entries and return them.

        Raises:
            StoreCorrupt: one of the keys is no stream; it is no longer read.
        """
        news = await self._news.get()
        if isinstance(news, StoreCorrupt):
            raise news
        return news


class StreamReader:
    """Reads new entries of streams for all subscribers of this process.

    One command at a time reads all streams. It blocks for `block_s`, which is below the client's time-out; a stream
    that is added meanwhile waits for its end.
    """

    def __init__(self, redis: Redis, block_s: float) -> None:
        self._redis: Any = redis
        self._block_ms = int(block_s * 1000)
        self._subscriptions: dict[tuple[str, ...], set[StreamSubscription]] = {}
        self._seen: dict[str, str] = {}
        self._wanted = asyncio.Event()

    @contextmanager
    def follow(self, *streams: str, after: str) -> Iterator[StreamSubscription]:
        """Subscribe to these streams in the block, from the id `after` on.

        If others follow the same streams already, the entries begin at their position, not at `after`.
        """
        subscription = StreamSubscription()
        if streams not in self._subscriptions:
            self._subscriptions[streams] = set()
            self._seen.update(dict.fromkeys(streams, after))
        self._subscriptions[streams].add(subscription)
        self._wanted.set()
        try:
            yield subscription
        finally:
            self._unsubscribe(streams, subscription)

    async def follow_forever(self, stream: str) -> AsyncIterator[StreamEntry]:
        """Yield all entries of the stream; wait while the key is no stream."""
        after = "0"
        while True:
            with self.follow(stream, after=after) as subscription, suppress(StoreCorrupt):
                while True:
                    for row in await subscription.get():
                        after = row[0]
                        yield row
            await asyncio.sleep(RESUBSCRIBE_PAUSE_S)

    async def read_forever(self) -> None:
        """Read for all subscribers; a key that is no stream ends only its own."""
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
            await self._drop_corrupt()
            await asyncio.sleep(RETRY_PAUSE_S)
        else:
            self._deliver({stream: rows for stream, rows in read if stream in self._seen})

    async def _drop_corrupt(self) -> None:
        """Read each stream by itself, and drop the keys that are no streams."""
        for streams, subscriptions in list(self._subscriptions.items()):
            try:
                with translate_redis_errors():
                    for stream in streams:
                        await self._redis.xread({stream: self._seen.get(stream, "0")}, count=1)
            except StoreCorrupt as error:
                logger.exception("stream_unreadable", extra={"streams": list(streams)})
                for subscription in list(subscriptions):
                    subscription.put(error)
                    self._unsubscribe(streams, subscription)

    def _unsubscribe(self, streams: tuple[str, ...], subscription: StreamSubscription) -> None:
        """End the subscription, unless it has ended."""
        subscriptions = self._subscriptions.get(streams, set())
        subscriptions.discard(subscription)
        if streams in self._subscriptions and not subscriptions:
            del self._subscriptions[streams]
            for stream in streams:
                del self._seen[stream]

    def _deliver(self, read: Mapping[str, list[StreamEntry]]) -> None:
        self._seen.update({stream: rows[-1][0] for stream, rows in read.items()})
        for streams, subscriptions in self._subscriptions.items():
            rows = [row for stream in streams for row in read.get(stream, [])]
            if rows:
                for subscription in subscriptions:
                    subscription.put(rows)
