"""The feedback store: ratings of runs, each with its question and answer."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from serve_app.errors import NotFound, RunUnfinished, StoreCorrupt
from serve_app.runs.event_log import UNFINISHED_STATUSES, parse_readable
from serve_app.stores.redis import translate_redis_errors
from serve_app.stores.redis_keys import FeedbackKeys, RunKeys
from serve_app.values import Answer, Feedback, FeedbackList, TurnRequest

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from serve_app.config import FeedbackSettings
    from serve_app.values import Context, FeedbackRequest, Rating

logger = logging.getLogger(__name__)

OTHER: dict[Rating, Rating] = {"up": "down", "down": "up"}


class FeedbackStore:
    """Votes in Redis.

    Question and answer are kept with the vote, longer than the run is.
    """

    def __init__(self, redis: Redis, settings: FeedbackSettings) -> None:
        self._redis: Any = redis
        self._ttl_s = settings.ttl_s

    async def vote(self, context: Context, vote: FeedbackRequest) -> Rating | None:
        """Rate a run; a second vote takes the first one's place.

        Returns the earlier rating.

        Raises:
            NotFound: the tenant has no such run, or its time is over.
            RunUnfinished: the run has not ended.
            StoreUnavailable: Redis did not answer.
        """
        feedback = await self._with_answer(context, vote)
        keys = FeedbackKeys(context.tenant)
        mine, other = keys.rated(vote.rating), keys.rated(OTHER[vote.rating])
        with translate_redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.set(keys.vote(vote.run_id), feedback.model_dump_json(), ex=self._ttl_s, get=True)
                pipe.zrem(other, vote.run_id)
                pipe.zadd(mine, {vote.run_id: feedback.at})
                for rated in (mine, other):
                    pipe.zremrangebyscore(rated, "-inf", feedback.at - self._ttl_s)
                pipe.expire(mine, self._ttl_s)
                before, *_ = await pipe.execute()
        earlier = _parse_feedback(before)
        return earlier.rating if earlier else None

    async def list_votes(self, context: Context, rating: Rating | None, limit: int) -> FeedbackList:
        """Return the latest votes, of one rating or of both.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        keys = FeedbackKeys(context.tenant)
        oldest = time.time() - self._ttl_s
        with translate_redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                for each in OTHER:
                    pipe.zcount(keys.rated(each), oldest, "+inf")
                    pipe.zrevrange(keys.rated(each), 0, limit - 1, withscores=True)
                up, rated_up, down, rated_down = await pipe.execute()
            found = (rated_up if rating != "down" else []) + (rated_down if rating != "up" else [])
            latest = sorted(found, key=lambda one: -one[1])[:limit]
            votes = await self._redis.mget([keys.vote(run_id) for run_id, _ in latest]) if latest else []
        feedback = tuple(vote for each in votes if (vote := _parse_feedback(each)))
        return FeedbackList(feedback=feedback, up=up, down=down)

    async def _with_answer(self, context: Context, vote: FeedbackRequest) -> Feedback:
        """Return the vote with the question and answer that it is about.

        Raises:
            NotFound: there is no such run.
            RunUnfinished: the run has not ended.
        """
        keys = RunKeys(context.tenant, vote.run_id)
        with translate_redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hmget(keys.run, "status", "session_id", "request")
                pipe.xrevrange(keys.steps, count=1)
                (status, session_id, request), ended = await pipe.execute()
        if status is None:
            raise NotFound(f"There is no run {vote.run_id}")
        if status in UNFINISHED_STATUSES:
            raise RunUnfinished("The run has not ended; rate it when its answer is there")
        try:
            request_body = TurnRequest.model_validate_json(request or "", extra="ignore")
        except ValidationError as error:
            raise StoreCorrupt("What the run was asked with cannot be read") from error
        last = parse_readable(ended)
        data = last[0].event.data if last else None
        answer = data if isinstance(data, Answer) else None
        return Feedback(
            **vote.model_dump(),
            session_id=session_id,
            user_id=request_body.user_id,
            at=time.time(),
            question=request_body.user_input,
            answer=answer.result if answer else None,
            status=status,
            degraded=tuple(answer.degraded) if answer else (),
            model=answer.model if answer else None,
        )


def _parse_feedback(vote: str | None) -> Feedback | None:
    """Parse a stored vote; None where there is none or it cannot be parsed."""
    if not vote:
        return None
    try:
        return Feedback.model_validate_json(vote, extra="ignore")
    except ValidationError as error:
        logger.warning("vote_unreadable", extra={"problems": error.error_count()})
        return None
