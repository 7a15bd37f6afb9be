"""The injected faults that an operator has set, in Redis for all processes."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from serve_app.errors import StoreCorrupt, StoreUnavailable
from serve_app.stores.availability import RedisAvailability
from serve_app.stores.redis import translate_redis_errors
from serve_app.stores.redis_keys import FAULTS
from serve_app.values import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

FRESH_S = 1.0
"""How long faults that were read are used: a new fault takes effect after this time at the latest."""
READ_TIMEOUT_S = 0.2
"""One request in a second waits for the read, and must not notice it."""
TTL_S = 3600
"""The key's time to live, renewed by each fault that is set: as long as the longest of them."""


class FaultStore:
    """Faults in Redis. Every method but `active_faults` raises `StoreUnavailable` while Redis is away."""

    def __init__(
        self,
        redis: Redis,
        availability: RedisAvailability | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis: Any = redis
        self._availability = availability or RedisAvailability()
        self._clock = clock
        self._faults: tuple[Fault, ...] = ()
        self._fresh_until = float("-inf")

    async def active_faults(self) -> tuple[Fault, ...]:
        """Return the faults for a new request; none while they cannot be read.

        What was read is used for a second.
        """
        if self._clock() >= self._fresh_until:
            self._fresh_until = self._clock() + FRESH_S  # before the read: one request waits for it, not all
            self._faults = ()
            try:
                self._faults = await self._availability.call_once(self.list_faults, READ_TIMEOUT_S)
            except StoreCorrupt as error:
                logger.warning("faults_unreadable", extra={"error": error.message})
            except StoreUnavailable:
                logger.debug("faults_not_read", exc_info=True)  # `redis_unavailable` is logged once
            except Exception:
                logger.exception("faults_not_read")
        return _drop_expired(self._faults)

    async def list_faults(self) -> tuple[Fault, ...]:
        """Return the active faults, sorted by their targets."""
        with translate_redis_errors():
            rows = await self._redis.hgetall(FAULTS)
        faults = (_parse_fault(target, text) for target, text in sorted(rows.items()))
        return _drop_expired(fault for fault in faults if fault)

    async def put(self, fault: Fault) -> None:
        """Set a fault; it replaces the one of the same target."""
        with translate_redis_errors():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hset(FAULTS, fault.target, fault.model_dump_json())
            pipeline.expire(FAULTS, TTL_S)
            await pipeline.execute()
        self._fresh_until = float("-inf")

    async def clear(self, target: str | None) -> None:
        """Remove the fault of `target`; None removes all."""
        with translate_redis_errors():
            await (self._redis.delete(FAULTS) if target is None else self._redis.hdel(FAULTS, target))
        self._fresh_until = float("-inf")


def _parse_fault(target: str, text: str) -> Fault | None:
    """Return the fault; None where it is not valid, which is logged."""
    try:
        return Fault.model_validate_json(text, extra="ignore")
    except ValidationError as error:
        logger.warning("fault_unreadable", extra={"target": target, "problems": error.error_count()})
        return None


def _drop_expired(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    now = time.time()
    return tuple(fault for fault in faults if now < fault.until)
