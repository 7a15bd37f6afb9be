"""Does a conversation keep what was said, and no longer than it should?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from serve_app.config import MemorySettings
from serve_app.errors import NotFound
from serve_app.memory.window import Window
from serve_app.runs.lease import lease_of, session_held
from serve_app.values import Context, Exchange, Message

if TYPE_CHECKING:
    from redis.asyncio import Redis


def _context(session: str = "s", run: str = "run", tenant: str = "default") -> Context:
    return Context(request_id="r", run_id=run, session_id=session, tenant=tenant, deadline=time.time() + 5)


def _exchange(text: str, run: str | None = None) -> Exchange:
    messages = [Message(role="user", content=text), Message(role="assistant", content=text.upper())]
    return Exchange(run_id=run or f"run-{text}", at=time.time(), messages=messages)


async def _say(redis: Redis, window: Window, context: Context, *texts: str) -> None:
    for text in texts:
        async with session_held(redis, context) as lease:
            assert await window.append(context, _exchange(text), lease)


async def test_the_window_is_the_last_exchanges_oldest_first(redis: Redis) -> None:
    window = Window(redis, MemorySettings(window=3))
    await _say(redis, window, _context(), "a", "b", "c", "d", "e")
    assert [exchange.messages[0].content for exchange in await window.recall(_context())] == ["c", "d", "e"]


async def test_a_window_of_zero_remembers_nothing(redis: Redis) -> None:
    window = Window(redis, MemorySettings(window=0))
    await _say(redis, window, _context(), "a")
    assert await window.recall(_context()) == []


async def test_a_session_shows_the_latest_and_counts_all(redis: Redis) -> None:
    window = Window(redis, MemorySettings(ttl_s=100))
    await _say(redis, window, _context(), "a", "b", "c")
    session = await window.session(_context(), limit=2)
    assert session.turns == 3
    assert 90 < session.expires_in_s <= 100
    assert [exchange.messages[1].content for exchange in session.exchanges] == ["B", "C"]


async def test_sessions_and_tenants_do_not_see_each_other(redis: Redis) -> None:
    window = Window(redis, MemorySettings())
    await _say(redis, window, _context("one"), "a")
    assert await window.recall(_context("two")) == []
    assert await window.recall(_context("one", tenant="other")) == []


async def test_a_run_that_lost_its_lease_writes_nothing(redis: Redis) -> None:
    window = Window(redis, MemorySettings())
    async with session_held(redis, _context(run="newer")):
        late = _context(run="older")
        assert not await window.append(late, _exchange("late"), lease_of(late))
    assert await window.recall(_context()) == []


async def test_a_forgotten_session_is_gone(redis: Redis) -> None:
    window = Window(redis, MemorySettings())
    await _say(redis, window, _context(), "a")
    await window.forget(_context(), lease_of(_context()))
    with pytest.raises(NotFound):
        await window.session(_context(), limit=1)
    with pytest.raises(NotFound):
        await window.forget(_context(), lease_of(_context()))


async def test_every_key_has_an_end(redis: Redis) -> None:
    window = Window(redis, MemorySettings())
    await _say(redis, window, _context(), "a")
    async with session_held(redis, _context()):
        keys = [key async for key in redis.scan_iter()]
        assert len(keys) == 2
        assert all([await redis.ttl(key) > 0 for key in keys])


async def test_an_append_that_is_repeated_for_a_lost_reply_is_made_once(redis: Redis) -> None:
    window = Window(redis, MemorySettings())
    async with session_held(redis, _context()) as lease:
        assert await window.append(_context(), _exchange("a", "run"), lease)
        assert await window.append(_context(), _exchange("a", "run"), lease)
    assert len(await window.recall(_context())) == 1


async def test_a_turn_that_runs_while_its_session_is_forgotten_adds_nothing(redis: Redis) -> None:
    window = Window(redis, MemorySettings())
    await _say(redis, window, _context(), "a")
    async with session_held(redis, _context(run="late")) as lease:
        await window.forget(_context(), lease)
        assert not await window.append(_context(run="late"), _exchange("late"), lease)
    assert await window.recall(_context()) == []


async def test_an_exchange_that_does_not_parse_ends_no_conversation(redis: Redis) -> None:
    window = Window(redis, MemorySettings())
    await _say(redis, window, _context(), "a", "b")
    key = next(iter([key async for key in redis.scan_iter()]))
    await redis.rpush(key, '{"run_id": "newer", "written_by": "another version"}')
    assert [exchange.messages[0].content for exchange in await window.recall(_context())] == ["a", "b"]
