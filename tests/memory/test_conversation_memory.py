"""Conversation memory stores what was written, for its time to live."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from session_driver import SessionDriver, context, exchange

from serve_app.config import MemorySettings
from serve_app.errors import NotFound
from serve_app.memory import NO_ANSWER, NO_RESULT, ConversationMemory, Recalled
from serve_app.observability.metric_catalogue import SESSIONS_REPAIRED
from serve_app.observability.metrics import InMemoryMetrics
from serve_app.stores.redis_keys import RunKeys, SessionKeys
from serve_app.values import Exchange, Message, ToolRequest

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from serve_app.values import Context

KEYS = SessionKeys("default", "s")
CALL = Message(role="assistant", content="", tool_calls=[ToolRequest(id="c", name="pay", arguments={})])
NEWER = '{"run_id": "newer", "written_by": "another version"}'
EMPTY = Exchange(run_id="r", at=0, messages=[]).model_dump_json()


async def _recall(redis: Redis, turn_context: Context | None = None, **settings: int) -> Recalled:
    """What the next turn of the session knows."""
    turn_context = turn_context or context()
    sessions, window = SessionDriver(redis, **settings), ConversationMemory(redis, MemorySettings(**settings))
    held = await sessions.hold(turn_context)
    recalled = await window.recall(turn_context, held.epoch, held.memory_rows)
    await sessions.end(turn_context, held, "")
    return recalled


def _first_messages(recalled: Recalled) -> list[str]:
    return [each.messages[0].content for each in recalled.exchanges]


async def _repairs(redis: Redis) -> int:
    return int(await redis.hget(KEYS.meta, "repairs") or 0)


async def _set_aside(redis: Redis) -> list[str]:
    return [key async for key in redis.scan_iter(KEYS.aside(0).removesuffix("0").replace("{", "[{]") + "*")]


async def test_the_window_is_the_last_exchanges_oldest_first(redis: Redis) -> None:
    await SessionDriver(redis).say(context(), *map(exchange, "abcde"))
    recalled = await _recall(redis, window=3)
    assert (_first_messages(recalled), recalled.complete) == (["c", "d", "e"], True)


async def test_a_window_of_zero_remembers_nothing_and_lacks_nothing(redis: Redis) -> None:
    await SessionDriver(redis).say(context(), exchange("a"))
    assert await _recall(redis, window=0) == Recalled([], complete=True)


async def test_a_session_shows_the_latest_and_counts_all(redis: Redis) -> None:
    await SessionDriver(redis, ttl_s=100).say(context(), *map(exchange, "abc"))
    session = await ConversationMemory(redis, MemorySettings()).session(context(), limit=2)
    assert session.turns == 3
    assert 90 < session.expires_in_s <= 100
    assert [each.messages[1].content for each in session.exchanges] == ["B", "C"]


async def test_sessions_and_tenants_do_not_see_each_other(redis: Redis) -> None:
    await SessionDriver(redis).say(context("one"), exchange("a"))
    for other in (context("two"), context("one", tenant="other")):
        assert await _recall(redis, other) == Recalled([], complete=True)


async def test_a_run_that_lost_its_turn_writes_nothing(redis: Redis) -> None:
    sessions, late, newer = SessionDriver(redis), context(), context()
    lapsed = await sessions.hold(late)
    await redis.delete(KEYS.lease)  # its life is over
    held = await sessions.hold(newer)
    assert await sessions.end(late, lapsed, exchange("late")) == "superseded"
    assert await sessions.end(newer, held, exchange("newer")) == "ok"
    assert _first_messages(await _recall(redis)) == ["newer"]


async def test_a_run_that_lost_its_turn_repairs_nothing_and_sets_nothing_aside(redis: Redis) -> None:
    sessions, window = SessionDriver(redis), ConversationMemory(redis, MemorySettings())
    await sessions.say(context(), NEWER)
    late = context()
    lapsed = await sessions.hold(late)
    await redis.delete(KEYS.lease)
    held = await sessions.hold(context())
    assert not (await window.recall(late, lapsed.epoch, [NEWER])).complete
    await window.recall(late, lapsed.epoch, [exchange("a"), NEWER])
    assert (await redis.llen(KEYS.exchanges), await _set_aside(redis), await _repairs(redis)) == (1, [], 0)
    await window.recall(late, held.epoch, [exchange("a"), NEWER])
    assert await _repairs(redis) == 1


async def test_an_end_that_is_repeated_for_a_lost_reply_is_remembered_once(redis: Redis) -> None:
    sessions, turn_context = SessionDriver(redis), context()
    held = await sessions.hold(turn_context)
    assert [await sessions.end(turn_context, held, exchange("a")) for _ in range(2)] == ["ok", "ok"]
    assert _first_messages(await _recall(redis)) == ["a"]


async def test_every_key_has_an_end(redis: Redis) -> None:
    await SessionDriver(redis).say(context(), exchange("a"))
    turn_context = context()
    held = await SessionDriver(redis).hold(turn_context)
    await ConversationMemory(redis, MemorySettings()).recall(turn_context, held.epoch, [exchange("a"), NEWER])
    keys = {key async for key in redis.scan_iter()}
    assert keys >= {KEYS.exchanges, KEYS.lease, KEYS.meta}
    assert [key for key in keys if await redis.ttl(key) <= 0] == []


async def test_an_exchange_that_does_not_parse_is_left_out_and_counted(redis: Redis) -> None:
    await SessionDriver(redis).say(context(), exchange("a"), NEWER, exchange("b"))
    recalled = await _recall(redis)
    assert (_first_messages(recalled), recalled.complete, await _repairs(redis)) == (["a", "b"], True, 1)
    assert await redis.llen(KEYS.exchanges) == 3


async def test_a_conversation_that_reads_well_counts_no_repair(redis: Redis) -> None:
    await SessionDriver(redis).say(context(), exchange("a"), exchange("b"))
    await _recall(redis)
    assert await _repairs(redis) == 0


async def test_a_half_written_turn_is_mended_as_it_is_read_and_counted(redis: Redis) -> None:
    half = Exchange(run_id="r", at=0, messages=[Message(role="user", content="pay"), CALL]).model_dump_json()
    await SessionDriver(redis).say(context(), half, exchange("b"))
    recalled = await _recall(redis)
    mended = [(each.role, each.content) for each in recalled.exchanges[0].messages]
    assert mended == [("user", "pay"), ("assistant", ""), ("tool", NO_RESULT), ("assistant", NO_ANSWER)]
    assert (_first_messages(recalled), await _repairs(redis)) == (["pay", "b"], 2)


async def test_a_session_shows_what_a_model_would_read_of_it(redis: Redis) -> None:
    orphan = Message(role="tool", content="whose?", tool_call_id="c")
    await SessionDriver(redis).say(context(), NEWER, exchange("a", orphan))
    session = await ConversationMemory(redis, MemorySettings()).session(context(), limit=9)
    assert [[each.content for each in one.messages] for one in session.exchanges] == [["a", "A"]]


@pytest.mark.parametrize(
    "rows", [["{}"], ["", "not JSON", NEWER], [Exchange(run_id="r", at=0, messages=[]).model_dump_json()]]
)
async def test_a_conversation_of_which_nothing_can_be_read_is_set_aside(redis: Redis, rows: list[str]) -> None:
    await redis.rpush(KEYS.exchanges, *rows)
    assert await _recall(redis, ttl_s=100) == Recalled([], complete=False)
    aside = await _set_aside(redis)
    assert len(aside) == 1
    assert await redis.lrange(aside[0], 0, -1) == rows
    assert 90 < await redis.ttl(aside[0]) <= 100
    assert not await redis.exists(KEYS.exchanges)


async def test_a_key_that_is_no_list_is_set_aside(redis: Redis) -> None:
    await redis.set(KEYS.exchanges, "what is this?")
    assert await _recall(redis, ttl_s=100) == Recalled([], complete=False)
    aside = await _set_aside(redis)
    assert [await redis.get(key) for key in aside] == ["what is this?"]
    assert 90 < await redis.ttl(aside[0]) <= 100


async def test_the_turn_after_a_conversation_was_set_aside_is_whole_and_remembered(redis: Redis) -> None:
    await redis.set(KEYS.exchanges, "what is this?")
    turn_context, sessions = context(), SessionDriver(redis)
    held = await sessions.hold(turn_context)
    assert not (
        await ConversationMemory(redis, MemorySettings()).recall(turn_context, held.epoch, held.memory_rows)
    ).complete
    assert await sessions.end(turn_context, held, exchange("fresh")) == "ok"
    recalled = await _recall(redis)
    assert (_first_messages(recalled), recalled.complete) == (["fresh"], True)
    assert len(await _set_aside(redis)) == 1


async def test_a_forgotten_session_is_gone(redis: Redis) -> None:
    window = ConversationMemory(redis, MemorySettings())
    await SessionDriver(redis).say(context(), exchange("a"), NEWER)
    await _recall(redis)
    assert await window.forget(context()) is None
    with pytest.raises(NotFound):
        await window.session(context(), limit=1)
    with pytest.raises(NotFound):
        await window.forget(context())
    assert (await _recall(redis), await _repairs(redis)) == (Recalled([], complete=True), 0)


async def test_what_is_left_of_a_forgotten_session_has_an_end(redis: Redis) -> None:
    await redis.rpush(KEYS.exchanges, exchange("a"))
    await ConversationMemory(redis, MemorySettings(ttl_s=100)).forget(context())
    assert {key: await redis.ttl(key) > 90 async for key in redis.scan_iter()} == {KEYS.meta: True}


async def test_a_session_that_cannot_be_read_can_be_forgotten(redis: Redis) -> None:
    await redis.set(KEYS.exchanges, "what is this?")
    await ConversationMemory(redis, MemorySettings()).forget(context())
    assert await _recall(redis) == Recalled([], complete=True)


@pytest.mark.parametrize("before", [[], ["a"]], ids=["the first turn", "a later turn"])
async def test_a_turn_that_runs_while_its_session_is_forgotten_adds_nothing(redis: Redis, before: list[str]) -> None:
    sessions, window, turn_context = SessionDriver(redis), ConversationMemory(redis, MemorySettings()), context()
    await sessions.say(context(), *map(exchange, before))
    held = await sessions.hold(turn_context)
    assert await window.forget(context()) == RunKeys("default", turn_context.run_id)
    assert await sessions.end(turn_context, held, exchange("late")) == "superseded"
    assert await _recall(redis) == Recalled([], complete=True)


async def test_a_session_is_free_at_once_when_it_is_forgotten(redis: Redis) -> None:
    sessions, turn_context = SessionDriver(redis), context()
    held = await sessions.hold(turn_context)
    await ConversationMemory(redis, MemorySettings()).forget(context())
    next_one = context()
    again = await sessions.hold(next_one)
    assert again.epoch > held.epoch
    assert await sessions.end(turn_context, held, exchange("late")) == "superseded"
    assert await sessions.end(next_one, again, exchange("next")) == "ok"
    assert _first_messages(await _recall(redis)) == ["next"]


@pytest.mark.parametrize(
    ("rows", "counted"),
    [([exchange("a")], {}), ([exchange("a"), NEWER, NEWER], {"mended": 1}), ([NEWER], {"set_aside": 1})],
)
async def test_a_conversation_that_was_mended_or_set_aside_is_counted_once_by_who_has_its_turn(
    redis: Redis, rows: list[str], counted: dict[str, int]
) -> None:
    metrics, sessions, turn_context = InMemoryMetrics(), SessionDriver(redis), context()
    window = ConversationMemory(redis, MemorySettings(), metrics)
    await sessions.say(context(), *rows)
    held = await sessions.hold(turn_context)
    await window.recall(turn_context, held.epoch - 1, rows)
    assert metrics.of(SESSIONS_REPAIRED) == {}
    await window.recall(turn_context, held.epoch, rows)
    assert metrics.of(SESSIONS_REPAIRED) == counted
