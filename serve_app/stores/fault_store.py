"""Which faults has an operator set, for all processes?"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from serve_app.errors import StoreUnavailable
from serve_app.stores.redis import translate_redis_errors
from serve_app.stores.redis_keys import FAULTS
from serve_app.values import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

FRESH_S = 1.0
"""How long what was read is believed: a fault hits this long after it was set, at the latest."""
READ_TIMEOUT_S = 0.2
"""One request in a second waits for the reading: not longer than it would notice."""
TTL_S = 3600
"""The key's time to live, renewed by each fault that is set: as long as the longest of them."""


class FaultStore:
    """Faults in Redis. Every method but `active_faults` raises `StoreUnavailable` while Redis is away."""

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis: Any = redis
        self._clock = clock
        self._read: tuple[Fault, ...] = ()
        self._fresh_until = float("-inf")

    async def active_faults(self) -> tuple[Fault, ...]:
        """The faults for a request that begins now, as known within a second; none when nobody can tell."""
        if self._clock() >= self._fresh_until:
            self._fresh_until = self._clock() + FRESH_S  # before the reading: one request waits for it, not all
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    self._read = await self.list_faults()
            except (StoreUnavailable, TimeoutError) as error:
                logger.warning("faults_unknown", extra={"error": str(error)})
                self._read = ()
            except Exception:
                logger.exception("faults_unknown")
                self._read = ()
        return _unexpired(self._read)

    async def list_faults(self) -> tuple[Fault, ...]:
        """The faults in force, by their targets."""
        with translate_redis_errors():
            found = await self._redis.hgetall(FAULTS)
        faults = (_readable(target, each) for target, each in sorted(found.items()))
        return _unexpired(fault for fault in faults if fault)

    async def put(self, fault: Fault) -> None:
        """Set a fault, in place of the one of the same target."""
        with translate_redis_errors():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hset(FAULTS, fault.target, fault.model_dump_json())
            pipeline.expire(FAULTS, TTL_S)
            await pipeline.execute()
        self._fresh_until = float("-inf")

    async def clear(self, target: str | None) -> None:
        """End the fault of `target`; None ends all."""
        with translate_redis_errors():
            await (self._redis.delete(FAULTS) if target is None else self._redis.hdel(FAULTS, target))
        self._fresh_until = float("-inf")


def _readable(target: str, written: str) -> Fault | None:
    """The fault; one that nobody can read is none."""
    try:
        return Fault.model_validate_json(written, extra="ignore")
    except ValidationError as error:
        logger.warning("fault_unreadable", extra={"target": target, "problems": error.error_count()})
        return None


def _unexpired(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    now = time.time()
    return tuple(fault for fault in faults if now < fault.until)
