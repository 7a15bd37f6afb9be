"""The run store: a worker's changes of runs in Redis, atomic and fenced."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError
from redis.exceptions import RedisError

from serve_app.errors import Internal, StoreCorrupt
from serve_app.runs import scripts
from serve_app.runs.event_log import LogEntry, parse_entry, read_rows, registration_arguments, sort_entries
from serve_app.stores.redis import to_store_error, translate_redis_errors
from serve_app.stores.redis_keys import UNFINISHED_RUNS, RunKeys, SessionKeys
from serve_app.values import Answer, Context, Failed, Failure, RunEvent, TurnRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from redis.asyncio import Redis

    from serve_app.config import RunSettings
    from serve_app.memory import ConversationMemory
    from serve_app.values import ChatRequest, EventData, RunStatus

logger = logging.getLogger(__name__)

LEASE_MS = 2_000
"""How long a run belongs to a process that sends no heartbeat: longer than a healthy process pauses, and no longer than
a user waits."""
MAX_LAPSED_RUNS = 20
"""How many runs of dead processes one search finds; the next search finds the others."""

WriteResult = Literal["ok", "superseded", "ended", "failed"]
"""The result of a write: written, refused because a later owner has the run, refused because the run was ended, or
failed in a way that would fail again."""

UNREADABLE = Failed(error=Failure.of(Internal("What the run was asked with cannot be read"), ""))


@dataclass(frozen=True, slots=True)
class RunLease:
    """The right of this process to a run and its session."""

    epoch: int
    last_event_id: int
    """0 where nobody ran it before."""
    adoptions: int
    memory_rows: list[str] | None
    """The stored exchanges that memory has read; None where they cannot be read."""
    registered_at: float = 0.0
    """Unix time in seconds."""
    recovered: bool = False
    """Whether it was adopted, just now, from a process that died."""

    @property
    def is_first(self) -> bool:
        """Whether no process had the run before."""
        return not self.last_event_id and not self.adoptions


@dataclass(frozen=True, slots=True)
class BusySession:
    """Another run has the session."""

    holder: RunKeys
    last_event_id: int
    """Of the run that waits; 0 where nobody ran it before."""


BeginResult = RunLease | BusySession | Literal["elsewhere", "ended"]


@dataclass(frozen=True, slots=True)
class RunAppend:
    """Entries for a run's log.

    With a `status` the run ends, and `exchange` is added to the memory.
    """

    context: Context
    epoch: int
    entries: Sequence[LogEntry]
    status: RunStatus | Literal[""] = ""
    exchange: str = ""

    def without_memory(self) -> RunAppend:
        """Return the same with an answer that is degraded by `memory`.

        It is used while Redis is away.
        """
        answer = self.entries[-1].event.data if self.status else None
        if not self.context.session_id or not isinstance(answer, Answer):
            return self
        last = LogEntry(RunEvent(id=self.entries[-1].event.id, data=answer.without("memory")))
        return replace(self, entries=[*self.entries[:-1], last], status="degraded")


class RunStore:
    """The runs in Redis, for the process `owner` that runs some of them."""

    def __init__(self, redis: Redis, settings: RunSettings, memory: ConversationMemory, owner: str) -> None:
        self.owner = owner
        self._redis: Any = redis
        self._settings = settings
        self._memory = memory

    async def begin(self, context: Context, request: ChatRequest, after: int) -> BeginResult:
        """Take the run, its session and what memory reads, in one round trip.

        `after` is the latest event that the follower has seen, -1 where nobody follows.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        run, session = _keys(context)
        keys = (run.run, session.lease, session.meta, UNFINISHED_RUNS)
        limits = (LEASE_MS, after, self._settings.steps_ttl_s, self._session_ttl_s(context))
        registration = registration_arguments(context, request)
        with translate_redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.eval(scripts.BEGIN, len(keys), *keys, run.member, self.owner, *limits, *registration)
                self._memory.queue_read(pipe, session)
                begun, memory_reply = await pipe.execute(raise_on_error=False)
            if isinstance(begun, RedisError):
                raise begun
            memory_rows = self._memory.parse_read(memory_reply)
        match begun:
            case ["held", epoch, last, adoptions, registered_at, recovered]:
                return RunLease(epoch, last, adoptions, memory_rows, _parse_time(registered_at), bool(recovered))
            case ["waiting", holder, last]:
                return BusySession(RunKeys.of(holder), last)
            case ["elsewhere"]:
                return "elsewhere"
            case ["ended"]:
                return "ended"
        raise StoreCorrupt("A field of the run is missing")

    async def append(self, appends: Sequence[RunAppend]) -> list[WriteResult]:
        """Write to several runs in one round trip, and return each result.

        One that fails costs no other.

        Raises:
            StoreUnavailable: Redis did not answer; whatever was written may be written again.
        """
        with translate_redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for each in appends:
                    self._queue_append(pipe, each)
                replies: list[Any] = await pipe.execute(raise_on_error=False)
        results: list[WriteResult] = []
        for reply in _results(replies, [each.context for each in appends], "events_not_written"):
            result, size = reply if isinstance(reply, list) else (reply, 0)
            self._memory.observe_size(size)
            results.append(result)
        return results

    def _queue_append(self, pipe: Any, append: RunAppend) -> None:
        run, session = _keys(append.context)
        memory_keys = self._memory.write_keys(session)
        keys = (run.run, session.lease, session.meta, UNFINISHED_RUNS, run.steps, run.tokens, *memory_keys)
        ttls = (self._settings.steps_ttl_s, self._settings.tokens_ttl_s)
        entries = [argument for entry in append.entries for argument in entry.arguments]
        arguments = (append.epoch, run.member, *ttls, append.status, len(append.entries), *entries)
        pipe.eval(scripts.APPEND, len(keys), *keys, *arguments, *self._memory.write_arguments(append.exchange))

    def _session_ttl_s(self, context: Context) -> int:
        """How long the lease of a session is kept.

        A run without a conversation needs it as long as the run.
        """
        return self._memory.ttl_s if context.session_id else self._settings.steps_ttl_s

    async def renew(self, leases: Sequence[tuple[Context, int]]) -> list[WriteResult]:
        """Send a heartbeat for these runs, each under its epoch.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        with translate_redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for context, epoch in leases:
                    run, session = _keys(context)
                    keys = (run.run, session.lease, session.meta, UNFINISHED_RUNS)
                    pipe.eval(scripts.RENEW, len(keys), *keys, epoch, run.member, LEASE_MS)
                replies: list[Any] = await pipe.execute(raise_on_error=False)
        return _results(replies, [context for context, _ in leases], "run_not_renewed")

    async def reserve(self, context: Context, epoch: int, call: str) -> WriteResult | Literal["taken"]:
        """Journal that the call `call` is about to be made.

        Returns `taken` where an earlier owner has journaled it.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        run, session = _keys(context)
        with translate_redis_errors():
            reserved: WriteResult | Literal["taken"] = await self._redis.eval(
                scripts.RESERVE, 2, run.run, session.meta, epoch, call
            )
        return reserved

    async def release(self, context: Context, epoch: int, exchange: str) -> None:
        """Free the session of a run that another process has ended.

        `exchange` is added to the memory.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        run, session = _keys(context)
        keys = (session.lease, session.meta, *self._memory.write_keys(session))
        arguments = (epoch, run.member, *self._memory.write_arguments(exchange))
        with translate_redis_errors():
            await self._redis.eval(scripts.RELEASE, len(keys), *keys, *arguments)

    async def hand_over(self, context: Context) -> None:
        """Give the run up, so that another process adopts it.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        run, session = _keys(context)
        keys = (run.run, session.lease, UNFINISHED_RUNS)
        with translate_redis_errors():
            await self._redis.eval(scripts.HAND_OVER, len(keys), *keys, self.owner, run.member)

    async def end(self, context: Context, status: RunStatus, last: EventData, owner: str = "") -> bool:
        """End a run that has no session yet; return whether this ended it.

        With `owner`, only a run that this owner has.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return await self._end(RunKeys(context.tenant, context.run_id), status, last, owner)

    async def _end(self, run: RunKeys, status: RunStatus, last: EventData, owner: str = "") -> bool:
        """As `end`; where a key of the run is corrupt, at least nobody adopts it."""
        keys = (run.run, UNFINISHED_RUNS, run.steps)
        ending = (status, last.event, last.model_dump_json(), owner)
        try:
            with translate_redis_errors():
                ended = await self._redis.eval(
                    scripts.END, len(keys), *keys, run.member, self._settings.steps_ttl_s, *ending
                )
        except StoreCorrupt:
            logger.exception("run_not_ended", extra={"tenant": run.tenant, "run_id": run.run_id})
            with translate_redis_errors():
                await self._redis.zrem(UNFINISHED_RUNS, run.member)
            return False
        return bool(ended[0] == "ok")

    async def abandon(self, context: Context, epoch: int) -> None:
        """Free the session of a run whose end cannot be logged.

        No process adopts it.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        run, session = _keys(context)
        keys = (run.run, session.lease, session.meta, UNFINISHED_RUNS)
        with translate_redis_errors():
            await self._redis.eval(scripts.ABANDON, len(keys), *keys, epoch, run.member)

    async def find_lapsed(self, full: Collection[str] = ()) -> list[tuple[Context, TurnRequest]]:
        """Return the oldest runs whose owner sends no heartbeat, without those of the tenants `full`.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        with translate_redis_errors():
            members = await self._redis.eval(scripts.LAPSED, 1, UNFINISHED_RUNS, MAX_LAPSED_RUNS, *full)
        found = [(member, await self._read_request(RunKeys.of(member))) for member in members]
        for member in [member for member, run in found if run is None]:
            await self._end(RunKeys.of(member), "failed", UNREADABLE)
            with translate_redis_errors():
                await self._redis.zrem(UNFINISHED_RUNS, member)
        return [run for _, run in found if run]

    async def _read_request(self, keys: RunKeys) -> tuple[Context, TurnRequest] | None:
        """Return context and request of a run, without fields of a later version.

        Returns None where they cannot be parsed.
        """
        try:
            with translate_redis_errors():
                context, request = await self._redis.hmget(keys.run, "context", "request")
            found = Context.model_validate_json(context or "", extra="ignore")
            of_another = RunKeys(found.tenant, found.run_id) != keys
            turn = found, TurnRequest.model_validate_json(request or "", extra="ignore")
        except (StoreCorrupt, ValidationError):
            logger.exception("run_unreadable", extra={"tenant": keys.tenant, "run_id": keys.run_id})
            return None
        if of_another:
            logger.error("run_unreadable", extra={**found.ids, "tenant": keys.tenant, "run_id": keys.run_id})
        return None if of_another else turn

    async def read_entries(self, context: Context, after: int = 0) -> list[LogEntry]:
        """Return the log of the run after the event `after`.

        Raises:
            StoreUnavailable: Redis did not answer.
            StoreCorrupt: one of its events cannot be read, so it is unknown what the run has done.
        """
        rows = await read_rows(self._redis, RunKeys(context.tenant, context.run_id), after)
        return sort_entries(parse_entry(*row) for row in rows)


def _parse_time(written: str) -> float:
    try:
        return float(written)
    except ValueError:
        raise StoreCorrupt("The run's time is no number") from None


def _results(replies: Sequence[Any], contexts: Sequence[Context], event: str) -> list[Any]:
    """Return the reply for each run; `failed` where a key of that run is corrupt.

    Raises:
        StoreUnavailable: one failed for a reason that concerns every run.
    """
    results = list(replies)
    for place, (reply, context) in enumerate(zip(replies, contexts, strict=True)):
        if isinstance(reply, RedisError):
            error = to_store_error(reply)
            if not isinstance(error, StoreCorrupt):
                raise error from reply
            logger.error(event, extra=context.ids, exc_info=reply)
            results[place] = "failed"
    return results


def _keys(context: Context) -> tuple[RunKeys, SessionKeys]:
    return RunKeys(context.tenant, context.run_id), SessionKeys.of(context)
