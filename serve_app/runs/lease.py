"""Who may run a session's turn?

One turn of a session runs at a time, whichever replicas are asked. The right to it is a Redis key with a short life
that its holder renews: a holder that dies loses it by itself.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from serve_app.errors import SessionBusy, StoreUnavailable
from serve_app.resilience.deadline import remaining_s
from serve_app.stores.redis import translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from serve_app.values import Context

logger = logging.getLogger(__name__)

LIFE_MS = 6_000
"""Longer than any pause of a healthy replica, short enough that a dead one's session is soon free."""
RENEW_EVERY_S = 2.0
POLL_MIN_S, POLL_MAX_S = 0.02, 0.25

RENEW_IF_HELD = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
RELEASE_IF_HELD = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


def lease_key(context: Context) -> str:
    """The key that holds the id of the run whose turn it is."""
    return f"serve_app:session:{{{context.tenant}:{context.session_id}}}:lease"


class Leases:
    """The sessions' leases in Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._renew = redis.register_script(RENEW_IF_HELD)
        self._release = redis.register_script(RELEASE_IF_HELD)

    @asynccontextmanager
    async def hold(self, context: Context) -> AsyncIterator[None]:
        """Hold the session for `context.run_id`, waiting for another turn until the deadline.

        Raises:
            SessionBusy: the other turn was still running then.
            StoreUnavailable: Redis did not answer.
        """
        await self._acquire(context)
        renewing = asyncio.create_task(self._keep(context))
        try:
            yield
        finally:
            renewing.cancel()
            with suppress(asyncio.CancelledError):
                await renewing
            await self._let_go(context)

    async def _acquire(self, context: Context) -> None:
        wait_s = POLL_MIN_S
        while True:
            with translated():
                if await self._redis.set(lease_key(context), context.run_id, nx=True, px=LIFE_MS):
                    return
            if remaining_s(context.deadline) <= wait_s:
                raise SessionBusy("Another turn of this session is still running")
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.5, POLL_MAX_S)

    async def _keep(self, context: Context) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            try:
                with translated():
                    await self._renew(keys=[lease_key(context)], args=[context.run_id, LIFE_MS])
            except StoreUnavailable as error:
                logger.warning("lease of run %s not renewed: %s", context.run_id, error)

    async def _let_go(self, context: Context) -> None:
        try:
            with translated():
                await self._release(keys=[lease_key(context)], args=[context.run_id])
        except StoreUnavailable as error:
            logger.warning("lease of run %s not released, it lapses by itself: %s", context.run_id, error)
