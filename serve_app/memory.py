"""Conversation memory in Redis: exchanges, the window that a turn reads, and sizes.

A conversation is a Redis list of exchanges, appended and never rewritten, so a turn costs the same however long the
conversation is. The model reads the tail of the list again: the window. Memory adds its commands to those of
the run, so it costs no extra round trip: `queue_read` is sent with the script that begins a run, and the scripts that
end a run include the Lua functions in `REMEMBER`, fenced by the run's epoch.

An exchange is one turn, in a form that is valid for every provider. Providers refuse a conversation in which a tool
call has no result, a result has no call, or a turn has no answer. A session with one such message would fail in every
later turn, so exchanges are repaired when they are written and read.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from redis.exceptions import RedisError

from serve_app.errors import NotFound
from serve_app.observability.metric_catalogue import SESSION_BYTES, SESSIONS_REPAIRED
from serve_app.observability.metrics import NULL_METRICS
from serve_app.stores.redis import is_wrong_type, translate_redis_errors
from serve_app.stores.redis_keys import SESSION_PATTERN, RunKeys, SessionKeys, parse_session_id
from serve_app.values import NO_RESULT, Exchange, Message, Session, SessionSize, SessionSizes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redis.asyncio import Redis

    from serve_app.config import MemorySettings
    from serve_app.ports import Metrics
    from serve_app.values import ChatRequest, Context

logger = logging.getLogger(__name__)

MAX_TOOL_CHARACTERS = 1_000
"""Of a tool's output in memory: the answer already holds what mattered of it."""
MAX_REASONING_CHARACTERS = 8_000
"""Of the thinking before a tool call. Some providers want it again; they check that it is there, not how it ends."""
NO_ANSWER = "(This turn ended before it was answered.)"
SCAN_BATCH = 500
SCAN_TIMEOUT_S = 20.0
"""Enough for about a million conversations; with more the result is marked as incomplete."""

REMEMBER = """
-- Appends one exchange to the conversation; an empty one adds nothing.
local function remember(key, argument)
  if ARGV[argument + 1] == '' then return end
  redis.pcall('RPUSH', KEYS[key], ARGV[argument + 1]) -- a key that is no list is set aside by the next turn
  redis.call('EXPIRE', KEYS[key], ARGV[argument])
end
local function remembered_bytes(key)
  local size = redis.pcall('MEMORY', 'USAGE', KEYS[key]) -- which some servers do not support
  return type(size) == 'number' and size or 0
end
"""
"""Lua functions for the scripts of a run. `key` and `argument` are the places of the first of `write_keys` and of
`write_arguments`."""

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
    """What a turn recalls of its session."""

    exchanges: list[Exchange]
    complete: bool
    """False if the conversation was not read: Redis is away, or its data is unreadable."""

    @property
    def messages(self) -> list[Message]:
        """The messages that the model reads before those of the turn."""
        return [message for exchange in self.exchanges for message in exchange.messages]


class ConversationMemory:
    """The conversations of all sessions, with a window of exchanges for each turn."""

    def __init__(self, redis: Redis, settings: MemorySettings, metrics: Metrics = NULL_METRICS) -> None:
        self._redis: Any = redis
        self._metrics = metrics
        self._settings = settings

    @property
    def ttl_s(self) -> int:
        """How long a conversation is kept after its last turn, in seconds."""
        return self._settings.ttl_s

    def queue_read(self, pipe: Any, session: SessionKeys) -> None:
        """Add the read of the window to a pipeline; `parse_read` takes its reply."""
        window = self._settings.window
        pipe.lrange(session.exchanges, *((-window, -1) if window else (1, 0)))

    def parse_read(self, reply: Any) -> list[str] | None:
        """Return the stored exchanges of the window; None where the key is no list.

        Raises:
            RedisError: the read failed.
        """
        if is_wrong_type(reply):
            return None
        if isinstance(reply, RedisError):
            raise reply
        rows: list[str] = reply
        return rows

    def write_keys(self, session: SessionKeys) -> tuple[str, ...]:
        """Return the keys that `REMEMBER` takes."""
        return (session.exchanges,)

    def write_arguments(self, exchange: str) -> tuple[str | int, ...]:
        """Return the arguments that `REMEMBER` takes."""
        return (self._settings.ttl_s, exchange)

    def observe_size(self, size: int) -> None:
        """Record the bytes of a conversation that a turn has added to."""
        if size:
            self._metrics.observe(SESSION_BYTES, size)

    async def recall(self, context: Context, epoch: int, rows: Sequence[str] | None) -> Recalled:
        """Return the stored exchanges `rows` in a form that every model can read.

        Where `rows` is None or nothing in it can be read, the conversation is set aside under another key and begins
        anew. `epoch` fences these writes.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        exchanges, repairs = _parse_exchanges(rows or [])
        keys = SessionKeys(context.tenant, context.session_id)
        if rows is None or (rows and not exchanges):
            aside = keys.aside(time.time_ns() // 1_000_000)
            logger.error("session_set_aside", extra={**context.ids, "key": aside})
            arguments = (keys.exchanges, aside, keys.meta, epoch, self._settings.ttl_s)
            with translate_redis_errors():
                if await self._redis.eval(SET_ASIDE, 3, *arguments):
                    self._metrics.count(SESSIONS_REPAIRED, outcome="set_aside")
            return Recalled([], complete=False)
        if repairs:
            logger.warning("session_repaired", extra={**context.ids, "messages": repairs})
            with translate_redis_errors():
                if await self._redis.eval(COUNT_REPAIRS, 1, keys.meta, epoch, repairs):
                    self._metrics.count(SESSIONS_REPAIRED, outcome="mended")
        return Recalled(exchanges, complete=True)

    async def session(self, context: Context, limit: int) -> Session:
        """Return the latest `limit` exchanges.

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
                turns, expires_in_s, rows = await pipe.execute(raise_on_error=False)
            if isinstance(turns, RedisError) and not is_wrong_type(turns):
                raise turns
        if not turns or is_wrong_type(turns):  # the next turn sets such a key aside
            raise _not_found(context)
        exchanges, _ = _parse_exchanges(rows)
        return Session(
            session_id=context.session_id,
            turns=turns,
            expires_in_s=max(0, expires_in_s),
            exchanges=[_without_reasoning(each) for each in exchanges],
        )

    async def forget(self, context: Context) -> RunKeys | None:
        """Delete the conversation, and return the run that had the session.

        That run loses the session, so that it writes nothing more.

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
            raise _not_found(context)
        return RunKeys.of(holder[0]) if holder else None


def _parse_exchanges(rows: Sequence[str]) -> tuple[list[Exchange], int]:
    """Return the readable exchanges, and how many messages were added or left out."""
    exchanges, repairs = [], 0
    for row in rows:
        try:
            exchange = Exchange.model_validate_json(row)
        except ValidationError:
            repairs += 1
            continue
        messages, count = repair_messages(exchange.messages)
        repairs += count
        if messages:
            exchanges.append(exchange.model_copy(update={"messages": messages}))
    return exchanges, repairs


def _without_reasoning(exchange: Exchange) -> Exchange:
    """Return the exchange as a client sees it."""
    messages = [each.model_copy(update={"reasoning": "", "model": ""}) for each in exchange.messages]
    return exchange.model_copy(update={"messages": messages})


def _not_found(context: Context) -> NotFound:
    return NotFound(f"There is no session {context.session_id}")


def serialize_exchange(context: Context, request: ChatRequest, messages: Sequence[Message]) -> str:
    """Return the turn as memory stores it; empty where the turn has no conversation."""
    if not context.session_id:
        return ""
    exchange = Exchange(run_id=context.run_id, at=time.time(), user_id=request.user_id, messages=list(messages))
    return exchange.model_dump_json()


def repair_messages(messages: Sequence[Message]) -> tuple[list[Message], int]:
    """Return valid messages of one exchange, and how many were added or left out.

    Messages before the user's are left out; nothing is left where no user speaks.
    """
    first = next((index for index, each in enumerate(messages) if each.role == "user"), None)
    if first is None:
        return [], len(messages)
    repaired = list(_pair_calls_with_results(messages[first:]))
    if repaired[-1].role != "assistant":
        repaired.append(Message(role="assistant", content=NO_ANSWER))
    unchanged = sum(any(each is one for one in messages) for each in repaired)
    return repaired, len(messages) - unchanged + len(repaired) - unchanged


def _pair_calls_with_results(messages: Sequence[Message]) -> Iterator[Message]:
    """Put one result behind each call, and leave out results that have no call."""
    open_calls: list[str] = []
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id in open_calls:
                open_calls.remove(message.tool_call_id)
                yield message
            continue
        yield from _missing_results(open_calls)
        yield message
        open_calls = [call.id for call in message.tool_calls] if message.role == "assistant" else []
    yield from _missing_results(open_calls)


def _missing_results(calls: Sequence[str]) -> Iterator[Message]:
    for call in calls:
        yield Message(role="tool", content=NO_RESULT, tool_call_id=call)


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
            async with asyncio.timeout(SCAN_TIMEOUT_S):
                while not complete:
                    cursor, keys = await client.scan(cursor, match=SESSION_PATTERN, count=SCAN_BATCH)
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
