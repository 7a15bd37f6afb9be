"""Single-flight: one run leads, and those that wait learn at once how it ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from serve_app import cache
from serve_app.cache import CachedAnswer, CacheLookup, Hit, Lead, SharedAnswers
from serve_app.stores.redis_keys import AnswerKeys, documents_version_key, inbox_stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

KEYS = AnswerKeys("default", "d1", "manuals")
CACHED = CachedAnswer(result="Yes.", citations=[], tool_calls=[], model="m", messages=[])
NEWER = CACHED.model_copy(update={"result": "No."})
SOON_S = 1.8
"""Sooner than a right lapses."""


@pytest.fixture
async def pair(redis: Redis) -> AsyncIterator[tuple[SharedAnswers, SharedAnswers]]:
    """The answers as two processes have them."""
    both = SharedAnswers(redis, uuid4().hex, 60), SharedAnswers(redis, uuid4().hex, 60)
    yield both
    for each in both:
        await each.close()


def lookup(keys: AnswerKeys = KEYS) -> CacheLookup:
    return CacheLookup(keys, uuid4().hex)


async def led(one: SharedAnswers, keys: AnswerKeys = KEYS, **given: Any) -> Lead:
    lead = await asyncio.wait_for(one.get(lookup(keys), **given), SOON_S)
    assert isinstance(lead, Lead), lead
    return lead


async def waiting(other: SharedAnswers) -> asyncio.Task[Any]:
    """A run that waits by now."""
    task = asyncio.create_task(other.get(lookup()))
    await asyncio.sleep(0.1)
    assert not task.done()
    return task


async def test_who_waits_in_another_process_is_told_of_the_answer_at_once(
    pair: tuple[SharedAnswers, SharedAnswers],
) -> None:
    one, other = pair
    lead = await led(one)
    tasks = [await waiting(each) for each in (one, other, other)]
    assert await one.put(lead, CACHED)
    assert await asyncio.wait_for(asyncio.gather(*tasks), SOON_S) == [Hit(CACHED, waited=True)] * 3
    assert await other.get(lookup()) == Hit(CACHED, waited=False)


async def test_who_waits_for_what_is_not_for_others_goes_on_alone_at_once_and_who_comes_soon_after_does_not_wait(
    pair: tuple[SharedAnswers, SharedAnswers],
) -> None:
    one, other = pair
    lead = await led(one)
    tasks = [await waiting(each) for each in (one, other)]
    one.release(lead, uncached=True)
    assert await asyncio.wait_for(asyncio.gather(*tasks), SOON_S) == [None, None]
    assert await other.get(lookup()) is None


async def test_one_of_those_who_wait_leads_where_the_leader_stops(pair: tuple[SharedAnswers, SharedAnswers]) -> None:
    one, other = pair
    lead = await led(one)
    tasks = [await waiting(each) for each in (one, other)]
    one.release(lead, uncached=False)
    done, still = await asyncio.wait(tasks, timeout=SOON_S, return_when=asyncio.FIRST_COMPLETED)
    [next_lead] = [await each for each in done]
    assert isinstance(next_lead, Lead)
    assert len(still) == 1
    await other.put(next_lead, CACHED)
    assert await asyncio.wait_for(still.pop(), SOON_S) == Hit(CACHED, waited=True)


async def test_a_right_that_lapsed_is_anothers_and_the_late_answer_of_the_first_is_not_kept(
    pair: tuple[SharedAnswers, SharedAnswers], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    monkeypatch.setattr(cache, "LEAD_MS", 100)
    late = await led(one)
    await asyncio.sleep(0.15)
    lead = await led(other)
    assert not await one.put(late, CACHED)
    one.release(late, uncached=True)
    await asyncio.sleep(0.05)
    assert await redis.hget(KEYS.lead, "run") == lead.question.run_id
    assert await other.put(lead, CACHED)


async def test_a_right_that_lapsed_and_that_nobody_took_is_still_good(
    pair: tuple[SharedAnswers, SharedAnswers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "LEAD_MS", 50)
    lead = await led(pair[0])
    await asyncio.sleep(0.1)
    assert await pair[0].put(lead, CACHED)


async def test_a_run_that_asks_twice_leads_twice_because_it_may_not_have_heard_the_first_time(
    pair: tuple[SharedAnswers, SharedAnswers],
) -> None:
    one, other = pair
    mine = lookup()
    assert await one.get(mine) == await other.get(mine) == Lead(mine, "", 0)


async def test_who_wants_it_made_anew_leads_even_where_it_is_there_or_being_made(
    pair: tuple[SharedAnswers, SharedAnswers],
) -> None:
    one, other = pair
    first = await led(one)
    second = await led(other, afresh=True)
    assert not await one.put(first, CACHED)
    assert await other.put(second, CACHED)
    await led(one, afresh=True)


async def test_an_answer_that_was_made_anew_outlives_one_that_was_begun_before(
    pair: tuple[SharedAnswers, SharedAnswers],
) -> None:
    one, other = pair
    before = await led(one)
    anew = await led(other, afresh=True)
    assert await other.put(anew, NEWER)
    assert not await one.put(before, CACHED)
    assert await one.get(lookup()) == Hit(NEWER, waited=False)


async def test_the_answer_of_a_successor_outlives_that_of_a_leader_whose_right_lapsed(
    pair: tuple[SharedAnswers, SharedAnswers], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    monkeypatch.setattr(cache, "LEAD_MS", 50)
    late = await led(one)
    await asyncio.sleep(0.1)
    assert await other.put(await led(other), NEWER)
    assert not await one.put(late, CACHED)
    assert await other.get(lookup()) == Hit(NEWER, waited=False)


async def test_an_answer_that_is_made_anew_takes_the_place_of_the_older_one_though_its_right_lapsed(
    pair: tuple[SharedAnswers, SharedAnswers], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    assert await one.put(await led(one), CACHED)
    monkeypatch.setattr(cache, "LEAD_MS", 50)
    anew = await led(one, afresh=True)
    await asyncio.sleep(0.1)
    assert await one.put(anew, NEWER)
    assert await other.get(lookup()) == Hit(NEWER, waited=False)


async def test_an_answer_of_another_version_is_neither_given_nor_kept_nor_waited_for(
    pair: tuple[SharedAnswers, SharedAnswers], redis: Redis
) -> None:
    one, other = pair
    await one.put(await led(one), CACHED)
    version = documents_version_key(KEYS.collection, KEYS.tenant)
    await redis.set(version, "v1")
    before = await led(one)
    await redis.set(version, "v2")
    after = await led(other)
    assert (before.version, after.version) == ("v1", "v2")
    assert not await one.put(before, CACHED)
    assert await other.put(after, CACHED)


@pytest.mark.parametrize("keys", [AnswerKeys("other", "d1", "manuals"), AnswerKeys("default", "d2", "manuals")])
async def test_another_tenant_or_question_is_another_answer(
    pair: tuple[SharedAnswers, SharedAnswers], keys: AnswerKeys
) -> None:
    one, other = pair
    await one.put(await led(one), CACHED)
    await led(other, keys)


async def test_an_answer_that_cannot_be_read_is_none(pair: tuple[SharedAnswers, SharedAnswers], redis: Redis) -> None:
    await pair[0].put(await led(pair[0]), CACHED)
    await redis.hset(KEYS.answer, "answer", "{}")
    assert await pair[0].get(lookup()) is None


async def test_all_that_is_written_ends_by_itself(pair: tuple[SharedAnswers, SharedAnswers], redis: Redis) -> None:
    one, other = pair
    lead = await led(one)
    task = await waiting(other)
    assert all([await redis.pttl(key) > 0 for key in await redis.keys("serve_app:*")])
    await one.put(lead, CACHED)
    await task
    keys = await redis.keys("serve_app:*")
    assert sorted(key.split(":")[1] for key in keys) == ["answer", "inbox"]
    assert all([await redis.pttl(key) > 0 for key in keys])


async def test_a_write_whose_reply_was_lost_may_be_made_again(
    pair: tuple[SharedAnswers, SharedAnswers], redis: Redis
) -> None:
    one, _ = pair
    lead = await led(one)
    assert [await one.put(lead, CACHED) for _ in range(2)] == [True, True]
    again = await led(one, afresh=True)
    given = (again.question.run_id, 1000)
    assert [await redis.eval(cache.RELEASE_LEAD, 3, *KEYS.all[:3], *given) for _ in range(2)] == [1, 0]


async def test_what_is_to_be_told_is_told_before_the_process_ends(redis: Redis) -> None:
    one = SharedAnswers(redis, uuid4().hex, 60)
    one.release(await led(one), uncached=False)
    await one.close()
    assert not await redis.exists(KEYS.lead)


async def test_what_is_garbage_in_the_inbox_or_cannot_be_renewed_costs_nobody_else(
    pair: tuple[SharedAnswers, SharedAnswers], redis: Redis
) -> None:
    one, other = pair
    broken = AnswerKeys("default", "d2", "manuals")
    await led(one, broken)
    lead = await led(one)
    await redis.set(broken.lead, "no hash")
    task = await waiting(other)
    for garbage in ({"nothing": "x"}, {"answer": b"\xff"}):
        await redis.xadd(inbox_stream(other._owner), garbage)  # type: ignore[arg-type]  # what a fault may write
    await asyncio.sleep(cache.LEAD_MS / 1000 + 0.3)
    assert await redis.hget(KEYS.lead, "run") == lead.question.run_id  # type: ignore[misc]  # redis-py types both clients at once
    assert await one.put(lead, CACHED)
    assert await asyncio.wait_for(task, SOON_S) == Hit(CACHED, waited=True)
    assert not any(task.done() for each in pair for task in each._background)


@pytest.mark.parametrize("fields", [{"answer": "{"}, {"answer": b"\xff"}, {}], ids=["cut off", "no text", "none"])
async def test_a_kept_answer_that_cannot_be_read_has_the_run_answer_by_itself(
    pair: tuple[SharedAnswers, SharedAnswers], redis: Redis, fields: dict[str, Any]
) -> None:
    await redis.hset(KEYS.answer, mapping={"version": "", **fields})  # type: ignore[misc]  # redis-py types both clients at once
    assert await pair[0].get(lookup()) is None
