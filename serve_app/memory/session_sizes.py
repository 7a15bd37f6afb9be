"""Sizes of conversations: lists those that take up most memory in Redis."""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING, Any

from serve_app.stores.redis import translate_redis_errors
from serve_app.stores.redis_keys import SESSION_PATTERN, SessionKeys, parse_session_id
from serve_app.values import SessionSize, SessionSizes

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from serve_app.values import Context

BATCH = 500
TIME_S = 20.0
"""Enough for about a million conversations; with more the result is marked as incomplete."""


async def largest_sessions(redis: Redis, context: Context, limit: int) -> SessionSizes:
    """Return the `limit` largest conversations of the tenant.

    They are read in small steps, because Redis serves turns meanwhile.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    client: Any = redis
    sizes: dict[str, int] = {}
    cursor, complete = 0, False
    with translate_redis_errors():
        try:
            async with asyncio.timeout(TIME_S):
                while not complete:
                    cursor, keys = await client.scan(cursor, match=SESSION_PATTERN, count=BATCH)
                    sizes.update(await _sizes(client, [key for key in keys if parse_session_id(key, context.tenant)]))
                    complete = cursor == 0
        except TimeoutError:
            complete = False
        rows = [
            await _row(client, context.tenant, key, sizes[key])
            for key in heapq.nlargest(limit, sizes, sizes.__getitem__)
        ]
    return SessionSizes(sessions=rows, counted=len(sizes), complete=complete)


async def _sizes(client: Any, keys: list[str]) -> dict[str, int]:
    async with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.memory_usage(key)
        sizes = await pipe.execute()
    return {key: size for key, size in zip(keys, sizes, strict=True) if size is not None}


async def _row(client: Any, tenant: str, exchanges: str, size: int) -> SessionSize:
    session_id = parse_session_id(exchanges, tenant) or ""
    async with client.pipeline(transaction=False) as pipe:
        pipe.llen(exchanges)
        pipe.ttl(exchanges)
        pipe.hget(SessionKeys(tenant, session_id).meta, "repairs")
        turns, expires_in_s, repairs = await pipe.execute(raise_on_error=False)
    return SessionSize(
        session_id=session_id,
        turns=turns if isinstance(turns, int) else 0,  # a key that is no list is one that a turn sets aside
        bytes=size,
        repairs=int(repairs) if isinstance(repairs, str) and repairs.isdecimal() else 0,
        expires_in_s=max(0, expires_in_s),
    )
