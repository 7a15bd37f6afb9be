"""Does one turn of a session run at a time?"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from serve_app.errors import SessionBusy, StoreUnavailable
from serve_app.runs.lease import lease_of, session_held
from serve_app.stores import lease as lease_module
from serve_app.stores.lease import LIFE_MS
from serve_app.values import Context

if TYPE_CHECKING:
    from redis.asyncio import Redis


def _context(run: str, seconds: float = 5, session: str = "s") -> Context:
    return Context(request_id="r", run_id=run, session_id=session, deadline=time.time() + seconds)


async def test_turns_of_a_session_run_one_after_the_other(redis: Redis) -> None:
    running, most = 0, 0

    async def turn(number: int) -> None:
        nonlocal running, most
        async with session_held(redis, _context(f"run{number}", 20)):
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.02)
            running -= 1

    await asyncio.gather(*(turn(number) for number in range(10)))
    assert most == 1


async def test_turns_of_other_sessions_do_not_wait(redis: Redis) -> None:
    async with (
        session_held(redis, _context("a", session="one")),
        session_held(redis, _context("b", 0.01, session="two")),
    ):
        assert await redis.get(lease_of(_context("a", session="one")).key) == "a"


async def test_a_second_turn_waits_until_its_deadline_and_is_refused_then(redis: Redis) -> None:
    async with session_held(redis, _context("first")):
        begun = time.monotonic()
        with pytest.raises(SessionBusy):
            async with session_held(redis, _context("second", 0.5)):
                pass
    assert 0.2 < time.monotonic() - begun < 1.5


async def test_the_lease_is_released_when_the_turn_fails(redis: Redis) -> None:
    with pytest.raises(ValueError, match="turn"):
        async with session_held(redis, _context("first")):
            raise ValueError("turn")
    assert await redis.get(lease_of(_context("first")).key) is None


async def test_a_lease_outlives_its_first_life_while_it_is_held(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "RENEW_EVERY_S", 0.05)
    async with session_held(redis, _context("first")):
        await redis.pexpire(lease_of(_context("first")).key, 100)
        await asyncio.sleep(0.3)
        assert LIFE_MS - 1000 < await redis.pttl(lease_of(_context("first")).key) <= LIFE_MS


async def test_a_dead_holders_lease_lapses_by_itself(redis: Redis) -> None:
    await redis.set(lease_of(_context("dead")).key, "dead", px=200)
    async with session_held(redis, _context("next")):
        assert await redis.get(lease_of(_context("next")).key) == "next"


async def test_a_holder_that_overslept_does_not_release_anothers_lease(redis: Redis) -> None:
    async with session_held(redis, _context("slow")):
        await redis.set(lease_of(_context("slow")).key, "newer")
    assert await redis.get(lease_of(_context("slow")).key) == "newer"


async def test_without_redis_there_is_no_lease() -> None:
    from serve_app.config import RedisSettings
    from serve_app.stores.redis import connect

    redis = connect(RedisSettings(timeout_s=0.5), "redis://127.0.0.1:1")
    with pytest.raises(StoreUnavailable):
        async with session_held(redis, _context("a")):
            pass
    await redis.aclose()


async def test_a_run_does_not_wait_for_itself_when_the_reply_to_its_lease_was_lost(redis: Redis) -> None:
    await redis.set(lease_of(_context("mine")).key, "mine", px=LIFE_MS)
    begun = time.monotonic()
    async with session_held(redis, _context("mine")):
        assert time.monotonic() - begun < 1
