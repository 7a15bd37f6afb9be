"""The health checks of Redis and of this machine's clock."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from serve_app.errors import StoreUnavailable
from serve_app.stores.redis import translate_redis_errors
from serve_app.values import DependencyCheck

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

PING_TIMEOUT_S = 1.0
"""Less than a readiness probe waits, so that the probe learns what hangs."""
MAX_CLOCK_SKEW_S = 2.0
"""A turn never notices it; synchronised clocks are a hundred times closer."""


class RedisHealth:
    """The health of the Redis of one process.

    Turns are answered without Redis, but a process that has never reached it probably has a wrong address. Until then
    Redis is a required dependency, so that no turn is sent here.
    """

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._clock = clock
        self._answered = False

    async def checks(self) -> list[DependencyCheck]:
        """Check that Redis answers, and that this machine's clock agrees with its clock."""
        sent_at = self._clock()
        try:
            with translate_redis_errors():
                async with asyncio.timeout(PING_TIMEOUT_S):
                    seconds, microseconds = await self._redis.time()
        except StoreUnavailable as error:
            return [DependencyCheck(name="redis", ok=False, reason=error.message, required=not self._answered)]
        self._answered = True
        return [
            DependencyCheck(name="redis", ok=True),
            check_clock(sent_at, seconds + microseconds / 1e6, self._clock()),
        ]


def check_clock(sent_at: float, server_time: float, received_at: float) -> DependencyCheck:
    """Compare the local clock with `server_time`, which was read between `sent_at` and `received_at`."""
    ahead_s = max(sent_at - server_time, 0.0) or min(received_at - server_time, 0.0)
    if abs(ahead_s) <= MAX_CLOCK_SKEW_S:
        return DependencyCheck(name="clock", ok=True, required=False)
    does = "ahead of Redis's: requests end too early here" if ahead_s > 0 else "behind Redis's: requests may end late"
    reason = f"The clock of this machine is {abs(ahead_s):.0f} s {does}. Synchronise the clocks"
    return DependencyCheck(name="clock", ok=False, reason=reason, required=False)
