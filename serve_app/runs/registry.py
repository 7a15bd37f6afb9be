"""How does the process that runs a run change what Redis knows of it?"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError
from redis.exceptions import RedisError

from serve_app.observability.catalogue import SESSION_BYTES
from serve_app.observability.recorders import SILENT
from serve_app.runs import scripts
from serve_app.runs.entries import Entry, entry, in_order
from serve_app.stores.keys import UNFINISHED, RunKeys, SessionKeys
from serve_app.stores.redis import of_another_type, translated
from serve_app.values import Answer, Context, TurnRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from redis.asyncio import Redis

    from serve_app.config import MemorySettings, RunSettings
    from serve_app.ports import Metrics
    from serve_app.values import ChatRequest, EventData, RunStatus

logger = logging.getLogger(__name__)

LIFE_MS = 2_000
"""How long an owner that is not heard of keeps its runs: longer than a healthy process pauses, and no more than a user
waits."""
LAPSED_AT_ONCE = 20
"""Runs of a lost process that one look finds; the next look finds the others."""

Kept = Literal["kept", "superseded", "ended"]
"""What became of a write: `superseded` by a later owner, or the run has `ended` by another hand."""


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


class Registry:
    """The runs in Redis, for one process that runs some of them under the name `owner`."""

    def __init__(
        self, redis: Redis, runs: RunSettings, memory: MemorySettings, owner: str, metrics: Metrics = SILENT
    ) -> None:
        self.owner = owner
        self._metrics = metrics
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
        keys = (run.run, session.lease, session.meta, UNFINISHED)
        limits = (LIFE_MS, after, self._runs.steps_ttl_s, self._session_ttl_s(context))
        asked = registration(context, request)
        window = (-self._memory.window, -1) if self._memory.window else (1, 0)
        with translated():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.eval(scripts.BEGIN, len(keys), *keys, run.member, self.owner, *limits, *asked)
                pipe.lrange(session.exchanges, *window)
                begun, remembered = await pipe.execute(raise_on_error=False)
            if isinstance(begun, RedisError):
                raise begun
            if isinstance(remembered, RedisError) and not of_another_type(remembered):
                raise remembered
        match begun:
            case ["held", epoch, last, adoptions, registered_at, recovered]:
                kept = None if of_another_type(remembered) else remembered
                return Held(epoch, last, adoptions, kept, float(registered_at), bool(recovered))
            case ["waiting", holder, last]:
                return Waiting(RunKeys.of(holder), last)
            case ["elsewhere"]:
                return "elsewhere"
        return "ended"

    async def append(self, appends: Sequence[Append]) -> list[Kept]:
        """Write to several runs in one round trip; what became of each.

        Raises:
            StoreUnavailable: Redis did not answer; whatever was written may be written again.
        """
        with translated():
            async with self._redis.pipeline(transaction=False) as pipe:
                for each in appends:
                    run, session = _keys(each.context)
                    keys = (run.run, session.lease, session.meta, UNFINISHED, run.steps, run.tokens, session.exchanges)
                    lives = (self._runs.steps_ttl_s, self._runs.tokens_ttl_s, self._session_ttl_s(each.context))
                    entries = [argument for one in each.entries for argument in one.arguments]
                    ending = (each.status, each.exchange)
                    pipe.eval(scripts.APPEND, len(keys), *keys, each.epoch, run.member, *lives, *ending, *entries)
                written: list[Kept | list[Any]] = await pipe.execute()
        return [self._kept(each) for each in written]

    def _session_ttl_s(self, context: Context) -> int:
        """How long what is kept of the session lives: of a run without a conversation, as long as the run."""
        return self._memory.ttl_s if context.session_id else self._runs.steps_ttl_s

    def _kept(self, written: Kept | list[Any]) -> Kept:
        """What became of a write; one that ended its run tells what the session takes up since."""
        if not isinstance(written, list):
            return written
        kept, size = written
        if size:
            self._metrics.observe(SESSION_BYTES, size)
        outcome: Kept = kept
        return outcome

    async def renew(self, held: Sequence[tuple[Context, int]]) -> list[Kept]:
        """Say that this process still has these runs, each under its epoch.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        with translated():
            async with self._redis.pipeline(transaction=False) as pipe:
                for context, epoch in held:
                    run, session = _keys(context)
                    keys = (run.run, session.lease, session.meta, UNFINISHED)
                    pipe.eval(scripts.RENEW, len(keys), *keys, epoch, run.member, LIFE_MS)
                kept: list[Kept] = await pipe.execute()
        return kept

    async def reserve(self, context: Context, epoch: int, call: str) -> Kept | Literal["taken"]:
        """Say that the call `call` is about to be made; `taken` where an earlier owner said so.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        run, session = _keys(context)
        with translated():
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
        with translated():
            await self._redis.eval(scripts.RELEASE, len(keys), *keys, epoch, run.member, self._memory.ttl_s, exchange)

    async def hand_over(self, context: Context) -> None:
        """Let another process go on with the run.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        run, session = _keys(context)
        keys = (run.run, session.lease, UNFINISHED)
        with translated():
            await self._redis.eval(scripts.HAND_OVER, len(keys), *keys, self.owner, run.member)

    async def end(self, context: Context, status: RunStatus, last: EventData, owner: str = "") -> bool:
        """End a run that has not had its turn; with `owner`, only where that process has it. Whether this ended it.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        run = RunKeys(context.tenant, context.run_id)
        keys = (run.run, UNFINISHED, run.steps)
        ending = (status, last.event, last.model_dump_json(), owner)
        with translated():
            ended = await self._redis.eval(scripts.END, len(keys), *keys, run.member, self._runs.steps_ttl_s, *ending)
        return bool(ended[0] == "kept")

    async def lapsed(self, full: Collection[str] = ()) -> list[tuple[Context, TurnRequest]]:
        """Runs whose owner is gone, the oldest ones, without those of the tenants `full`.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        with translated():
            members = await self._redis.eval(scripts.LAPSED, 1, UNFINISHED, LAPSED_AT_ONCE, *full)
            asked = [await self._redis.hmget(RunKeys.of(member).run, "context", "request") for member in members]
            runs = [_asked(*each) for each in asked]
            if lost := [member for member, run in zip(members, runs, strict=True) if run is None]:
                logger.error("runs_unreadable", extra={"runs": lost})
                await self._redis.zrem(UNFINISHED, *lost)
        return [run for run in runs if run]

    async def entries(self, context: Context, after: int = 0) -> list[Entry]:
        """The log of the run after the event `after`.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return await entries_of(self._redis, RunKeys(context.tenant, context.run_id), after)


async def entries_of(redis: Any, keys: RunKeys, after: int) -> list[Entry]:
    """Both streams of a run after the event `after`, read at one moment.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    with translated():
        async with redis.pipeline(transaction=True) as pipe:
            pipe.xrange(keys.steps, f"({after}-0")
            pipe.xrange(keys.tokens, f"({after}-0")
            streams = await pipe.execute()
    return in_order(entry(stream_id, fields) for stream in streams for stream_id, fields in stream)


def registration(context: Context, request: ChatRequest) -> tuple[str, str, str, float]:
    """As the scripts take what a run was asked with."""
    return context.session_id, context.model_dump_json(), request.model_dump_json(), time.time()


def _asked(context: str | None, request: str | None) -> tuple[Context, TurnRequest] | None:
    """What a run was asked with, also where a later version says more of it; None where that is gone or unreadable."""
    try:
        return (
            Context.model_validate_json(context or "", extra="ignore"),
            TurnRequest.model_validate_json(request or "", extra="ignore"),
        )
    except ValidationError:
        return None


def _keys(context: Context) -> tuple[RunKeys, SessionKeys]:
    return RunKeys(context.tenant, context.run_id), SessionKeys.of(context)
