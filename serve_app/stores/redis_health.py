"""Does Redis answer this process, and do their clocks agree?"""

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
"""Less than a readiness probe waits for this process, so that the probe is told what hangs."""
MAX_CLOCK_SKEW_S = 2.0
"""What a turn never notices; synchronised clocks are a hundred times nearer."""


class RedisHealth:
    """The Redis of one process.

    Turns are answered without Redis, but a process that has never heard of it more likely has a wrong address: until
    then no turn is to be sent here.
    """

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._clock = clock
        self._heard = False

    async def checks(self) -> list[DependencyCheck]:
        """Whether it answers, and whether a request's deadline means here what it means elsewhere."""
        asked_at = self._clock()
        try:
            with translate_redis_errors():
                async with asyncio.timeout(PING_TIMEOUT_S):
                    seconds, microseconds = await self._redis.time()
        except StoreUnavailable as error:
            return [DependencyCheck(name="redis", ok=False, reason=error.message, required=not self._heard)]
        self._heard = True
        return [
            DependencyCheck(name="redis", ok=True),
            check_clock(asked_at, seconds + microseconds / 1e6, self._clock()),
        ]


def check_clock(asked_at: float, told: float, heard_at: float) -> DependencyCheck:
    """Whether the time `told` by another machine, asked at `asked_at` and heard at `heard_at`, is that of here."""
    ahead_s = max(asked_at - told, 0.0) or min(heard_at - told, 0.0)
    if abs(ahead_s) <= MAX_CLOCK_SKEW_S:
        return DependencyCheck(name="clock", ok=True, required=False)
    does = "ahead of Redis's: requests end too early here" if ahead_s > 0 else "behind Redis's: requests may end late"
    reason = f"The clock of this machine is {abs(ahead_s):.0f} s {does}. Synchronise the clocks"
    return DependencyCheck(name="clock", ok=False, reason=reason, required=False)
