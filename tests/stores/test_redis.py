"""Redis fails with our errors, soon, and not because it is busy."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from serve_app.config import RedisSettings
from serve_app.errors import StoreUnavailable
from serve_app.stores.redis import MAX_CONNECTIONS, create_redis_client, translate_redis_errors

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def test_more_commands_at_once_than_connections_wait_for_one(redis: Redis) -> None:
    waiting = [redis.blpop(["nothing"], timeout=0.2) for _ in range(2 * MAX_CONNECTIONS)]
    assert await asyncio.gather(*waiting) == [None] * (2 * MAX_CONNECTIONS)


async def test_a_server_that_is_not_there_is_told_at_once() -> None:
    client = create_redis_client(RedisSettings(timeout_s=5), "redis://127.0.0.1:1")
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable), translate_redis_errors():
        await client.ping()
    assert time.monotonic() - begun < 1
    await client.aclose()


async def test_a_server_that_stays_silent_costs_the_time_out_and_no_more() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        client = create_redis_client(
            RedisSettings(timeout_s=0.3), f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        )
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable), translate_redis_errors():
            await client.ping()
        assert time.monotonic() - begun < 2
        await client.aclose()


async def test_a_connection_that_the_server_closed_is_made_anew(redis: Redis) -> None:
    await redis.set("kept", "yes")
    await redis.client_kill_filter(_type="normal", skipme=False)
    assert await redis.get("kept") == "yes"
