"""The largest conversations of a tenant, and of no other tenant."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from session_driver import SessionDriver, context, exchange

from serve_app import memory
from serve_app.config import MemorySettings
from serve_app.memory import ConversationMemory, largest_sessions
from serve_app.stores.redis_keys import SessionKeys

if TYPE_CHECKING:
    import pytest
    from redis.asyncio import Redis


async def _say(redis: Redis, session: str, *texts: str, tenant: str = "default") -> None:
    await SessionDriver(redis, ttl_s=100).say(context(session, tenant), *map(exchange, texts))


async def test_the_largest_come_first_with_what_they_hold(redis: Redis) -> None:
    await _say(redis, "middle", "m" * 5_000)
    await _say(redis, "small", "s")
    await _say(redis, "large", *["l" * 5_000] * 3)
    found = await largest_sessions(redis, context(), limit=9)
    assert [(each.session_id, each.turns) for each in found.sessions] == [("large", 3), ("middle", 1), ("small", 1)]
    assert [each.bytes for each in found.sessions] == sorted((each.bytes for each in found.sessions), reverse=True)
    assert 30_000 < found.sessions[0].bytes < 40_000
    assert all(90 < each.expires_in_s <= 100 for each in found.sessions)
    assert (found.counted, found.complete) == (3, True)


async def test_no_more_are_told_than_were_asked_for_but_all_are_counted(redis: Redis) -> None:
    for power in range(16):
        await _say(redis, f"s{power}", "x" * 2**power)  # Redis counts what its allocator rounds up
    found = await largest_sessions(redis, context(), limit=2)
    assert [each.session_id for each in found.sessions] == ["s15", "s14"]
    assert (found.counted, found.complete) == (16, True)


async def test_another_tenants_conversations_are_neither_told_nor_counted(redis: Redis) -> None:
    await _say(redis, "mine", "x")
    await _say(redis, "theirs", "x", tenant="default2")
    await _say(redis, "default:s", "x", tenant="other")
    found = await largest_sessions(redis, context(), limit=9)
    assert ([each.session_id for each in found.sessions], found.counted) == (["mine"], 1)


async def test_a_session_is_told_by_its_whole_name(redis: Redis) -> None:
    name = "a:b.c@d-e_f:exchanges"
    await _say(redis, name, "x")
    assert [each.session_id for each in (await largest_sessions(redis, context(), limit=9)).sessions] == [name]


async def test_repairs_are_told_with_the_conversation_that_needed_them(redis: Redis) -> None:
    await _say(redis, "whole", "a")
    await _say(redis, "broken", "a", "b")
    await redis.rpush(SessionKeys("default", "broken").exchanges, "{}")
    turn_context = context("broken")
    held = await SessionDriver(redis).hold(turn_context)
    await ConversationMemory(redis, MemorySettings()).recall(turn_context, held.epoch, held.memory_rows)
    found = await largest_sessions(redis, context(), limit=9)
    assert {each.session_id: each.repairs for each in found.sessions} == {"whole": 0, "broken": 1}


async def test_a_conversation_that_cannot_be_read_is_told_too(redis: Redis) -> None:
    await redis.set(SessionKeys("default", "s").exchanges, "x" * 10_000, ex=100)
    (row,) = (await largest_sessions(redis, context(), limit=9)).sessions
    assert (row.session_id, row.turns, row.repairs) == ("s", 0, 0)
    assert row.bytes > 10_000


async def test_nothing_else_of_a_session_is_taken_for_a_conversation(redis: Redis) -> None:
    await _say(redis, "s", "a")
    await SessionDriver(redis).hold(context("runs"))
    await redis.rpush(SessionKeys("default", "s").aside(1), "x")
    assert (await largest_sessions(redis, context(), limit=9)).counted == 1


class Endless:
    """A Redis that has told of one page of its keys when the time is over."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.pipeline = redis.pipeline

    async def scan(self, cursor: int, **options: Any) -> tuple[int, list[str]]:
        if cursor:
            await asyncio.Event().wait()
        _, keys = await self._redis.scan(cursor, **options)
        return 1, keys


async def test_what_was_not_counted_in_time_is_said_to_be_missing(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _say(redis, "s", "a")
    monkeypatch.setattr(memory, "SCAN_TIMEOUT_S", 0.2)
    found = await largest_sessions(Endless(redis), context(), limit=9)  # type: ignore[arg-type]
    assert ([each.session_id for each in found.sessions], found.counted, found.complete) == (["s"], 1, False)
