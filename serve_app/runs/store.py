"""How does the process that runs a run change what Redis knows of it?"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError
from redis.exceptions import RedisError

from serve_app.errors import Internal, StoreCorrupt
from serve_app.runs import scripts
from serve_app.runs.entries import Entry, entry, in_order
from serve_app.stores.redis import is_wrong_type, to_store_error, translate_redis_errors
from serve_app.stores.redis_keys import UNFINISHED_RUNS, RunKeys, SessionKeys
from serve_app.values import Answer, Context, Failed, Failure, TurnRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from redis.asyncio import Redis

    from serve_app.config import RunSettings
    from serve_app.memory.conversation import ConversationMemory
    from serve_app.runs.entries import Row
    from serve_app.values import ChatRequest, EventData, RunStatus

logger = logging.getLogger(__name__)

LIFE_MS = 2_000
"""How long an owner that is not heard of keeps its runs: longer than a healthy process pauses, and no more than a user
waits."""
LAPSED_AT_ONCE = 20
"""Runs of a lost process that one look finds; the next look finds the others."""

Kept = Literal["kept", "superseded", "ended", "failed"]
"""What became of a write: `superseded` by a later owner, the run has `ended` by another hand, or the write `failed` and
would fail again."""

UNREADABLE = Failed(error=Failure.of(Internal("What the run was asked with cannot be read"), ""))


@dataclass(frozen=True, slots=True)
class Held:
    """The run is this process's, and its session's turn."""

    epoch: int
    last: int
    """The id of the latest event; 0 where nobody ran it before."""
    adoptions: int
    remembered: list[str] | None
    """The latest exchanges of the session; None where they cannot be read."""
    registered_at: float = 0.0
    """Unix time in seconds."""
    recovered: bool = False
    """Whether it was taken over, just now, from a process that died."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The session's turn is another run's."""

    holder: RunKeys
    last: int
    """The id of the latest event of the run that waits; 0 where nobody ran it before."""


Begun = Held | Waiting | Literal["elsewhere", "ended"]


@dataclass(frozen=True, slots=True)
class Append:
    """Entries for a run's log; with a `status` the run ends, and `exchange` is what memory keeps of it."""

    context: Context
    epoch: int
    entries: Sequence[Entry]
    status: RunStatus | Literal[""] = ""
    exchange: str = ""

    def unremembered(self) -> Append:
        """The same, whose answer says that it is not remembered: Redis is away."""
        answer = self.entries[-1].event.data if self.status else None
        if not self.context.session_id or not isinstance(answer, Answer):
            return self
        last = Entry(self.entries[-1].event.model_copy(update={"data": answer.without("memory")}))
        return replace(self, entries=[*self.entries[:-1], last], status="degraded")


class RunStore:
    """The runs in Redis, for one process that runs some of them under the name `owner`."""

    def __init__(self, redis: Redis, runs: RunSettings, memory: ConversationMemory, owner: str) -> None:
        self.owner = owner
        self._redis: Any = redis
        self._runs = runs
        self._memory = memory

    async def begin(self, context: Context, request: ChatRequest, after: int) -> Begun:
        """Take the run, its session's turn and its window, in one round trip.

        `after` is the latest event that the asking follower has seen, -1 where nobody follows.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        run, session = _keys(context)
        keys = (run.run, session.lease, session.meta, UNFINISHED_RUNS)
        limits = (LIFE_MS, after, self._runs.steps_ttl_s, self._session_ttl_s(context))
        asked = registration(context, request)
        with translate_redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.eval(scripts.BEGIN, len(keys), *keys, run.member, self.owner, *limits, *asked)
                self._memory.queue_read(pipe, session)
                begun, remembered = await pipe.execute(raise_on_error=False)
            if isinstance(begun, RedisError):
                raise begun
            if isinstance(remembered, RedisError) and not is_wrong_type(remembered):
                raise remembered
        match begun:
            case ["held", epoch, last, adoptions, registered_at, recovered]:
                kept = None if is_wrong_type(remembered) else remembered
                return Held(epoch, last, adoptions, kept, _seconds(registered_at), bool(recovered))
            case ["waiting", holder, last]:
                return Waiting(RunKeys.of(holder), last)
            case ["elsewhere"]:
                return "elsewhere"
            case ["ended"]:
                return "ended"
        raise StoreCorrupt("A field of the run is missing")

    async def append(self, appends: Sequence[Append]) -> list[Kept]:
        """Write to several runs in one round trip; what became of each. One that fails costs no other.

        Raises:
            StoreUnavailable: Redis did not answer; whatever was written may be written again.
        """
        with translate_redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for each in appends:
                    run, session = _keys(each.context)
                    keys = (
                        run.run,
                        session.lease,
                        session.meta,
                        UNFINISHED_RUNS,
                        run.steps,
                        run.tokens,
                        session.exchanges,
                    )
                    lives = (self._runs.steps_ttl_s, self._runs.tokens_ttl_s, self._session_ttl_s(each.context))
                    entries = [argument for one in each.entries for argument in one.arguments]
                    ending = (each.status, each.exchange)
                    pipe.eval(scripts.APPEND, len(keys), *keys, each.epoch, run.member, *lives, *ending, *entries)
                written: list[Any] = await pipe.execute(raise_on_error=False)
        contexts = [each.context for each in appends]
        return [self._kept(each) for each in _each(written, contexts, "events_not_written")]

    def _session_ttl_s(self, context: Context) -> int:
        """How long what is kept of the session lives: of a run without a conversation, as long as the run."""
        return self._memory.ttl_s if context.session_id else self._runs.steps_ttl_s

    def _kept(self, written: Kept | list[Any]) -> Kept:
        """What became of a write; one that ended its run tells what the session takes up since."""
        if not isinstance(written, list):
            return written
        kept, size = written
        if size:
            self._memory.observe_size(size)
        outcome: Kept = kept
        return outcome

    async def renew(self, held: Sequence[tuple[Context, int]]) -> list[Kept]:
        """Say that this process still has these runs, each under its epoch.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        with translate_redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for context, epoch in held:
                    run, session = _keys(context)
                    keys = (run.run, session.lease, session.meta, UNFINISHED_RUNS)
                    pipe.eval(scripts.RENEW, len(keys), *keys, epoch, run.member, LIFE_MS)
                kept: list[Any] = await pipe.execute(raise_on_error=False)
        return _each(kept, [context for context, _ in held], "run_not_renewed")

    async def reserve(self, context: Context, epoch: int, call: str) -> Kept | Literal["taken"]:
        """Say that the call `call` is about to be made; `taken` where an earlier owner said so.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        run, session = _keys(context)
        with translate_redis_errors():
            reserved: Kept | Literal["taken"] = await self._redis.eval(
                scripts.RESERVE, 2, run.run, session.meta, epoch, call
            )
        return reserved

    async def release(self, context: Context, epoch: int, exchange: str) -> None:
        """Leave the session of a run that was ended by another hand, which did `exchange` to the memory.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        run, session = _keys(context)
        keys = (session.lease, session.meta, session.exchanges)
        with translate_redis_errors():
            await self._redis.eval(scripts.RELEASE, len(keys), *keys, epoch, run.member, self._memory.ttl_s, exchange)

    async def hand_over(self, context: Context) -> None:
        """Let another process go on with the run.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        run, session = _keys(context)
        keys = (run.run, session.lease, UNFINISHED_RUNS)
        with translate_redis_errors():
            await self._redis.eval(scripts.HAND_OVER, len(keys), *keys, self.owner, run.member)

    async def end(self, context: Context, status: RunStatus, last: EventData, owner: str = "") -> bool:
        """End a run that has not had its turn; with `owner`, only where that process has it. Whether this ended it.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return await self._end(RunKeys(context.tenant, context.run_id), status, last, owner)

    async def _end(self, run: RunKeys, status: RunStatus, last: EventData, owner: str = "") -> bool:
        """As `end`; a run that cannot be ended because a key of it is corrupt is at least adopted by nobody."""
        keys = (run.run, UNFINISHED_RUNS, run.steps)
        ending = (status, last.event, last.model_dump_json(), owner)
        try:
            with translate_redis_errors():
                ended = await self._redis.eval(
                    scripts.END, len(keys), *keys, run.member, self._runs.steps_ttl_s, *ending
                )
        except StoreCorrupt:
            logger.exception("run_not_ended", extra={"tenant": run.tenant, "run_id": run.run_id})
            with translate_redis_errors():
                await self._redis.zrem(UNFINISHED_RUNS, run.member)
            return False
        return bool(ended[0] == "kept")

    async def abandon(self, context: Context, epoch: int) -> None:
        """Leave the session of a run whose end cannot be logged, and have nobody adopt it.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        run, session = _keys(context)
        keys = (run.run, session.lease, session.meta, UNFINISHED_RUNS)
        with translate_redis_errors():
            await self._redis.eval(scripts.ABANDON, len(keys), *keys, epoch, run.member)

    async def lapsed(self, full: Collection[str] = ()) -> list[tuple[Context, TurnRequest]]:
        """Runs whose owner is gone, the oldest ones, without those of the tenants `full`.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        with translate_redis_errors():
            members = await self._redis.eval(scripts.LAPSED, 1, UNFINISHED_RUNS, LAPSED_AT_ONCE, *full)
        found = [(member, await self._asked(RunKeys.of(member))) for member in members]
        for member in [member for member, run in found if run is None]:
            await self._end(RunKeys.of(member), "failed", UNREADABLE)
            with translate_redis_errors():
                await self._redis.zrem(UNFINISHED_RUNS, member)
        return [run for _, run in found if run]

    async def _asked(self, keys: RunKeys) -> tuple[Context, TurnRequest] | None:
        """What the run was asked with, also where a later version says more of it; None where nobody can read it."""
        try:
            with translate_redis_errors():
                context, request = await self._redis.hmget(keys.run, "context", "request")
            asked = Context.model_validate_json(context or "", extra="ignore")
            of_another = RunKeys(asked.tenant, asked.run_id) != keys
            found = asked, TurnRequest.model_validate_json(request or "", extra="ignore")
        except (StoreCorrupt, ValidationError):
            logger.exception("run_unreadable", extra={"tenant": keys.tenant, "run_id": keys.run_id})
            return None
        if of_another:
            logger.error("run_unreadable", extra={**asked.ids, "tenant": keys.tenant, "run_id": keys.run_id})
        return None if of_another else found

    async def entries(self, context: Context, after: int = 0) -> list[Entry]:
        """The log of the run after the event `after`.

        Raises:
            StoreUnavailable: Redis did not answer.
            StoreCorrupt: one of its events cannot be read, so that nobody knows what has been done.
        """
        rows = await rows_of(self._redis, RunKeys(context.tenant, context.run_id), after)
        return in_order(entry(*row) for row in rows)


async def rows_of(redis: Any, keys: RunKeys, after: int) -> list[Row]:
    """Both streams of a run after the event `after`, read at one moment.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    with translate_redis_errors():
        async with redis.pipeline(transaction=True) as pipe:
            pipe.xrange(keys.steps, f"({after}-0")
            pipe.xrange(keys.tokens, f"({after}-0")
            steps, tokens = await pipe.execute()
    return [*steps, *tokens]


def registration(context: Context, request: ChatRequest) -> tuple[str, str, str, float]:
    """As the scripts take what a run was asked with."""
    return context.session_id, context.model_dump_json(), request.model_dump_json(), time.time()


def _seconds(written: str) -> float:
    try:
        return float(written)
    except ValueError:
        raise StoreCorrupt("The run's time is no number") from None


def _each(replies: Sequence[Any], contexts: Sequence[Context], event: str) -> list[Any]:
    """What a pipeline brought for each run: `failed` where a key of that run is corrupt.

    Raises:
        StoreUnavailable: one failed for a reason that is not its own.
    """
    kept = list(replies)
    for place, (reply, context) in enumerate(zip(replies, contexts, strict=True)):
        if isinstance(reply, RedisError):
            error = to_store_error(reply)
            if not isinstance(error, StoreCorrupt):
                raise error from reply
            logger.error(event, extra=context.ids, exc_info=reply)
            kept[place] = "failed"
    return kept


def _keys(context: Context) -> tuple[RunKeys, SessionKeys]:
    return RunKeys(context.tenant, context.run_id), SessionKeys.of(context)
