"""A lease in Redis, by which only one process at a time may write.

The lease is a key with a short life that its holder renews, so that a holder that dies loses it. Writes are fenced: the
script that writes checks in the same step that the key still names the writer.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serve_app.errors import ServeAppError, StoreUnavailable
from serve_app.resilience.retry import poll
from serve_app.stores.redis import translate_redis_errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

LEASE_MS = 6_000
"""Longer than any pause of a healthy replica, and short enough to free a dead one's lease soon."""
RENEW_EVERY_S = 2.0

# A script, not SET NX: the client repeats a command whose reply was lost, and would then wait for itself.
ACQUIRE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
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
    """A lease that is held while the Redis key `key` holds `holder`."""

    key: str
    holder: str


@asynccontextmanager
async def hold_lease(redis: Redis, lease: Lease, deadline: float, busy: ServeAppError) -> AsyncIterator[Lease]:
    """Hold the lease in the block, after waiting for another holder until `deadline`.

    Raises:
        ServeAppError: `busy`, because the other one still holds it.
        StoreUnavailable: Redis did not answer.
    """
    scripts: Any = redis
    try:
        await _acquire(scripts, lease, deadline, busy)
    except StoreUnavailable:
        await _release(scripts, lease)  # perhaps it was acquired, and only the reply was lost
        raise
    renewing = asyncio.create_task(_renew(scripts, lease))
    try:
        yield lease
    finally:
        renewing.cancel()
        await _release(scripts, lease)


async def _acquire(redis: Any, lease: Lease, deadline: float, busy: ServeAppError) -> None:
    async def attempt() -> bool:
        with translate_redis_errors():
            return bool(await redis.eval(ACQUIRE, 1, lease.key, lease.holder, LEASE_MS))

    if not await poll(attempt, deadline):
        raise busy


async def _renew(redis: Any, lease: Lease) -> None:
    while True:
        await asyncio.sleep(RENEW_EVERY_S)
        try:
            with translate_redis_errors():
                await redis.eval(RENEW_IF_HELD, 1, lease.key, lease.holder, LEASE_MS)
        except StoreUnavailable as error:
            logger.warning("lease_not_renewed", extra={"key": lease.key, "error": error.message})
        except Exception:
            logger.exception("lease_not_renewed", extra={"key": lease.key})


async def _release(redis: Any, lease: Lease) -> None:
    try:
        with translate_redis_errors():
            await redis.eval(RELEASE_IF_HELD, 1, lease.key, lease.holder)
    except StoreUnavailable as error:
        logger.warning("lease_not_released", extra={"key": lease.key, "error": error.message})
