"""Which process may write to the collection?

One at a time, because concurrent writers to a collection of Milvus Lite are unsafe. The right to it is a Redis key with
a short life that its holder renews; what is written to Redis is fenced by it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from serve_app.errors import Overloaded, StoreUnavailable
from serve_app.resilience.deadline import remaining_s
from serve_app.stores.redis import translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

LIFE_MS = 10_000
"""Longer than any pause of a healthy replica, short enough that the next writer soon takes over from a dead one."""
RENEW_EVERY_S = 3.0
POLL_S = 0.1

RENEW_IF_HELD = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
RELEASE_IF_HELD = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write: it is held while `key` holds `holder`."""

    key: str
    holder: str


class Writer:
    """The lease of one collection."""

    def __init__(self, redis: Redis, collection: str) -> None:
        self._redis: Any = redis
        self._key = f"{collection}:writer"

    @asynccontextmanager
    async def hold(self, deadline: float) -> AsyncIterator[Lease]:
        """Hold the lease, waiting for another writer until `deadline`.

        Raises:
            Overloaded: the other writer was still at work then.
            StoreUnavailable: Redis did not answer.
        """
        lease = Lease(self._key, uuid4().hex)
        await self._acquire(lease, deadline)
        renewing = asyncio.create_task(self._keep(lease))
        try:
            yield lease
        finally:
            renewing.cancel()
            with suppress(asyncio.CancelledError):
                await renewing
            await self._let_go(lease)

    async def _acquire(self, lease: Lease, deadline: float) -> None:
        while True:
            with translated():
                if await self._redis.set(lease.key, lease.holder, nx=True, px=LIFE_MS):
                    return
            if remaining_s(deadline) <= POLL_S:
                raise Overloaded("Other documents are being indexed", retry_after_s=LIFE_MS / 1000)
            await asyncio.sleep(POLL_S)

    async def _keep(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            try:
                with translated():
                    await self._redis.eval(RENEW_IF_HELD, 1, lease.key, lease.holder, LIFE_MS)
            except StoreUnavailable as error:
                logger.warning("the index's lease was not renewed: %s", error)

    async def _let_go(self, lease: Lease) -> None:
        try:
            with translated():
                await self._redis.eval(RELEASE_IF_HELD, 1, lease.key, lease.holder)
        except StoreUnavailable as error:
            logger.warning("the index's lease was not released, it lapses by itself: %s", error)
