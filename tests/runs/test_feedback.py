"""Feedback is stored with question and answer, one vote for each run and tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from worker_process import context, request

from serve_app.config import FeedbackSettings
from serve_app.errors import NotFound, RunUnfinished
from serve_app.runs.feedback import FeedbackStore
from serve_app.stores.redis_keys import FeedbackKeys
from serve_app.values import ChatRequest, FeedbackRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis
    from worker_process import WorkerProcess

    from serve_app.runs.event_log import RunEventLog
    from serve_app.runs.run import Run
    from serve_app.values import Answer

TTL_S = 1000


@pytest.fixture
def book(redis: Redis) -> FeedbackStore:
    return FeedbackStore(redis, FeedbackSettings(ttl_s=TTL_S))


async def run(start: Callable[..., WorkerProcess], run_id: str, tenant: str = "default") -> None:
    chat_request = ChatRequest(user_input="How are you?", session_id=f"s-{run_id}", user_id="u7")
    await start().events(context(f"s-{run_id}", run_id=run_id, tenant=tenant), chat_request)


async def test_a_vote_is_kept_with_question_and_answer(book, start, redis) -> None:
    await run(start, "r1")
    assert await book.vote(context(), FeedbackRequest(run_id="r1", rating="down", comment="too short")) is None
    votes_page = await book.list_votes(context(), None, 10)
    [vote] = votes_page.feedback
    assert (votes_page.up, votes_page.down) == (0, 1)
    assert (vote.question, vote.answer, vote.rating, vote.comment) == (
        "How are you?",
        "How do you do.",
        "down",
        "too short",
    )
    assert (vote.session_id, vote.user_id, vote.status, vote.model) == ("s-r1", "u7", "success", "m")
    assert 0 < await redis.ttl(FeedbackKeys("default").vote("r1")) <= TTL_S
    assert 0 < await redis.ttl(FeedbackKeys("default").rated("down")) <= TTL_S


async def test_a_second_vote_takes_the_place_of_the_first(book, start) -> None:
    await run(start, "r1")
    votes = [FeedbackRequest(run_id="r1", rating=rating) for rating in ("down", "down", "up")]
    assert [await book.vote(context(), vote) for vote in votes] == [None, "down", "down"]
    votes_page = await book.list_votes(context(), None, 10)
    assert (votes_page.up, votes_page.down, [vote.rating for vote in votes_page.feedback]) == (1, 0, ["up"])


async def test_votes_are_listed_latest_first_and_by_rating(book, start) -> None:
    for run_id, rating in (("r1", "up"), ("r2", "down"), ("r3", "up"), ("r4", "down")):
        await run(start, run_id)
        await book.vote(context(), FeedbackRequest(run_id=run_id, rating=rating))

    async def list_run_ids(rating, limit=10):
        return [vote.run_id for vote in (await book.list_votes(context(), rating, limit)).feedback]

    assert await list_run_ids(None) == ["r4", "r3", "r2", "r1"]
    assert await list_run_ids("down") == ["r4", "r2"]
    assert await list_run_ids("up", 1) == ["r3"]


async def test_a_vote_outlives_its_run(book, start, redis) -> None:
    await run(start, "r1")
    await book.vote(context(), FeedbackRequest(run_id="r1", rating="up"))
    await redis.delete(*[key async for key in redis.scan_iter("serve_app:run:*")])
    assert len((await book.list_votes(context(), "up", 10)).feedback) == 1
    with pytest.raises(NotFound):
        await book.vote(context(), FeedbackRequest(run_id="r1", rating="down"))


async def test_tenants_neither_see_nor_rate_each_others_runs(book, start) -> None:
    await run(start, "r1", tenant="blue")
    with pytest.raises(NotFound):
        await book.vote(context(tenant="red"), FeedbackRequest(run_id="r1", rating="up"))
    await book.vote(context(tenant="blue"), FeedbackRequest(run_id="r1", rating="up"))
    assert (await book.list_votes(context(tenant="red"), None, 10)).up == 0


async def test_a_run_that_has_not_ended_cannot_be_rated(book, log: RunEventLog) -> None:
    await log.claim(context(run_id="r1"), request(), None)
    with pytest.raises(RunUnfinished):
        await book.vote(context(), FeedbackRequest(run_id="r1", rating="up"))


async def test_a_run_that_failed_can_be_rated(book, start) -> None:
    async def fail(run: Run) -> Answer:
        raise RuntimeError("broken")

    process = start(fail)
    await process.events(context(run_id="r1"), request(text="How?"))
    await book.vote(context(), FeedbackRequest(run_id="r1", rating="down"))
    [vote] = (await book.list_votes(context(), None, 10)).feedback
    assert (vote.question, vote.answer, vote.status) == ("How?", None, "failed")


async def test_votes_that_have_expired_are_neither_listed_nor_counted(redis, start) -> None:
    book = FeedbackStore(redis, FeedbackSettings(ttl_s=1))
    await run(start, "r1")
    await book.vote(context(), FeedbackRequest(run_id="r1", rating="up"))
    await redis.zadd(FeedbackKeys("default").rated("up"), {"r1": 1})
    await redis.persist(FeedbackKeys("default").rated("up"))
    await redis.delete(FeedbackKeys("default").vote("r1"))
    votes_page = await book.list_votes(context(), None, 10)
    assert (votes_page.feedback, votes_page.up) == ((), 0)
