"""What of a conversation does the model see again?

A conversation is a Redis list of exchanges, appended and never rewritten, so that a turn costs the same however long
the conversation is. The window is its tail. Runs append to it, as they end.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from redis.exceptions import RedisError

from serve_app.errors import NotFound
from serve_app.memory.repair import repaired
from serve_app.observability.metric_catalogue import SESSION_BYTES, SESSIONS_REPAIRED
from serve_app.observability.null import NULL_METRICS
from serve_app.stores.redis import is_wrong_type, translate_redis_errors
from serve_app.stores.redis_keys import RunKeys, SessionKeys
from serve_app.values import Exchange, Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from serve_app.config import MemorySettings
    from serve_app.ports import Metrics
    from serve_app.values import Context

logger = logging.getLogger(__name__)

SET_ASIDE = """
-- KEYS exchanges aside meta
-- ARGV epoch ttl_s
if redis.call('HGET', KEYS[3], 'epoch') ~= ARGV[1] or redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('RENAME', KEYS[1], KEYS[2])
return redis.call('EXPIRE', KEYS[2], ARGV[2])
"""
COUNT_REPAIRS = """
-- KEYS meta
-- ARGV epoch repairs
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
return redis.call('HINCRBY', KEYS[1], 'repairs', ARGV[2])
"""
FORGET = """
-- KEYS exchanges lease meta
-- ARGV ttl_s
local turns = redis.call('DEL', KEYS[1])
local holder = redis.call('HGET', KEYS[2], 'run')
if turns == 0 and not holder then return {turns} end
redis.call('DEL', KEYS[2])
redis.call('HDEL', KEYS[3], 'repairs')
redis.call('HINCRBY', KEYS[3], 'epoch', 1)
redis.call('EXPIRE', KEYS[3], ARGV[1])
return holder and {turns, holder} or {turns}
"""


@dataclass(frozen=True, slots=True)
class Recalled:
    """What a turn remembers of its session."""

    exchanges: list[Exchange]
    whole: bool
    """False where the conversation could not be read, and begins anew."""


class ConversationMemory:
    """The conversations in Redis."""

    def __init__(self, redis: Redis, settings: MemorySettings, metrics: Metrics = NULL_METRICS) -> None:
        self._redis: Any = redis
        self._metrics = metrics
        self._settings = settings

    @property
    def ttl_s(self) -> int:
        """How long a conversation is kept after its last turn, in seconds."""
        return self._settings.ttl_s

    def queue_read(self, pipe: Any, session: SessionKeys) -> None:
        """Add the read of the window to a pipeline; `recall` takes its reply."""
        window = self._settings.window
        pipe.lrange(session.exchanges, *((-window, -1) if window else (1, 0)))

    def observe_size(self, size: int) -> None:
        """Count the bytes of a conversation that a turn has added to."""
        self._metrics.observe(SESSION_BYTES, size)

    async def recall(self, context: Context, epoch: int, kept: Sequence[str] | None) -> Recalled:
        """The exchanges `kept` as every model can read them; None or nothing readable sets the conversation aside.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        exchanges, repairs = _readable(kept or [])
        keys = SessionKeys(context.tenant, context.session_id)
        if kept is None or (kept and not exchanges):
            aside = keys.aside(time.time_ns() // 1_000_000)
            logger.error("session_set_aside", extra={**context.ids, "key": aside})
            given = (keys.exchanges, aside, keys.meta, epoch, self._settings.ttl_s)
            with translate_redis_errors():
                if await self._redis.eval(SET_ASIDE, 3, *given):
                    self._metrics.count(SESSIONS_REPAIRED, outcome="set_aside")
            return Recalled([], whole=False)
        if repairs:
            logger.warning("session_repaired", extra={**context.ids, "messages": repairs})
            with translate_redis_errors():
                if await self._redis.eval(COUNT_REPAIRS, 1, keys.meta, epoch, repairs):
                    self._metrics.count(SESSIONS_REPAIRED, outcome="mended")
        return Recalled(exchanges, whole=True)

    async def session(self, context: Context, limit: int) -> Session:
        """The latest `limit` exchanges.

        Raises:
            NotFound: there is no such conversation.
            StoreUnavailable: Redis did not answer.
        """
        key = SessionKeys(context.tenant, context.session_id).exchanges
        with translate_redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.llen(key)
                pipe.ttl(key)
                pipe.lrange(key, -limit, -1)
                turns, expires_in_s, kept = await pipe.execute(raise_on_error=False)
            if isinstance(turns, RedisError) and not is_wrong_type(turns):
                raise turns
        if not turns or is_wrong_type(turns):  # which the next turn sets aside
            raise _no_such(context)
        exchanges, _ = _readable(kept)
        return Session(
            session_id=context.session_id,
            turns=turns,
            expires_in_s=max(0, expires_in_s),
            exchanges=[_without_reasoning(each) for each in exchanges],
        )

    async def forget(self, context: Context) -> RunKeys | None:
        """Delete the conversation, and end the right of the run whose turn it is to write; that run.

        Raises:
            NotFound: there is no such conversation.
            StoreUnavailable: Redis did not answer.
        """
        keys = SessionKeys(context.tenant, context.session_id)
        with translate_redis_errors():
            turns, *holder = await self._redis.eval(
                FORGET, 3, keys.exchanges, keys.lease, keys.meta, self._settings.ttl_s
            )
        if not turns and not holder:
            raise _no_such(context)
        return RunKeys.of(holder[0]) if holder else None


def _readable(kept: Sequence[str]) -> tuple[list[Exchange], int]:
    """The exchanges that a model can read, and how many messages were mended or left out for that."""
    exchanges, repairs = [], 0
    for each in kept:
        try:
            exchange = Exchange.model_validate_json(each)
        except ValidationError:
            repairs += 1
            continue
        messages, count = repaired(exchange.messages)
        repairs += count
        if messages:
            exchanges.append(exchange.model_copy(update={"messages": messages}))
    return exchanges, repairs


def _without_reasoning(exchange: Exchange) -> Exchange:
    """The exchange as a client is shown it."""
    messages = [each.model_copy(update={"reasoning": "", "model": ""}) for each in exchange.messages]
    return exchange.model_copy(update={"messages": messages})


def _no_such(context: Context) -> NotFound:
    return NotFound(f"There is no session {context.session_id}")
