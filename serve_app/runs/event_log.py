"""The event log of runs: entries in Redis streams, which any process reads.

A run has two streams: one of steps, and one of text, which expires sooner. Event ids are unique over both.
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from serve_app.errors import Internal, KeyReused, NotFound, StoreCorrupt
from serve_app.runs import scripts
from serve_app.runs.metrics import NO_METRICS
from serve_app.stores.availability import RedisAvailability
from serve_app.stores.redis import translate_redis_errors
from serve_app.stores.redis_keys import UNFINISHED_RUNS, RunKeys, control_stream, idempotency_key
from serve_app.stores.stream_reader import StreamReader
from serve_app.values import (
    EVENT_TYPES,
    Answer,
    Cancelled,
    Claim,
    Failed,
    Failure,
    Reasoning,
    RunEvent,
    RunRecord,
    Token,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
    from typing import TypeVar

    from redis.asyncio import Redis

    from serve_app.config import RunSettings
    from serve_app.errors import Overloaded
    from serve_app.runs.metrics import RunMetrics
    from serve_app.values import ChatRequest, Context, EventData

    T = TypeVar("T")
    Row = tuple[str, Mapping[str, str]]

logger = logging.getLogger(__name__)

LAST_EVENTS = {Answer.event, Failed.event, Cancelled.event}
UNFINISHED_STATUSES = {"queued", "running"}
IDEMPOTENCY_KEY_TTL_S = 24 * 3600
"""How long an idempotency key finds its run."""
START_WITHIN_MS = 2_000
"""How long a registered run waits for the process that it was given to; then any process adopts it."""
WITHDRAWN_TTL_S = 300
"""How long a withdrawn run can be read, by those who sent its idempotency key meanwhile."""
BLOCK_S = 0.1
"""The blocking read of all followers; a new follower waits so long at most."""
CONTROL_TTL_S = 60
"""A process that does not read its control stream for so long is dead."""
CONTROL_LENGTH = 1000


@dataclass(frozen=True)
class LogEntry:
    """An event of a run; `state` is what an adopting process needs besides."""

    event: RunEvent
    state: str = ""

    @cached_property
    def arguments(self) -> tuple[int, str, str, str]:
        """The arguments of `scripts.APPEND`: id, event name, data and state."""
        return (self.event.id, self.event.name, self.event.json_data, self.state)

    @property
    def size(self) -> int:
        """Its size in characters, about."""
        return sum(map(len, self.arguments[1:]))


def parse_entry(stream_id: str, fields: Mapping[str, str]) -> LogEntry:
    """Parse an entry of a Redis stream.

    Fields that this version does not know are ignored.

    Raises:
        StoreCorrupt: it cannot be parsed.
    """
    try:
        data: EventData = EVENT_TYPES[fields["event"]].model_validate_json(fields["data"], extra="ignore")
        return LogEntry(RunEvent(id=_event_id(stream_id), data=data), fields.get("state", ""))
    except (KeyError, ValueError) as error:
        raise StoreCorrupt("An event of the run cannot be read") from error


def sort_entries(entries: Iterable[LogEntry]) -> list[LogEntry]:
    """Return the entries of both streams in the order of their events."""
    return sorted(entries, key=lambda each: each.event.id)


def parse_readable(rows: Iterable[Row]) -> list[LogEntry]:
    """Parse the entries for a follower, in order.

    An entry that cannot be parsed is left out; where it is the last one, a failure stands for it, so that nobody waits.
    """
    return sort_entries(each for row in rows if (each := _parse_or_skip(*row)))


def _parse_or_skip(stream_id: str, fields: Mapping[str, str]) -> LogEntry | None:
    try:
        return parse_entry(stream_id, fields)
    except StoreCorrupt:
        logger.exception("event_unreadable", extra={"entry": stream_id, "kind": fields.get("event")})
    if fields.get("event") not in LAST_EVENTS:
        return None
    failed = Failed(error=Failure.of(Internal("The last event of the run cannot be read"), ""))
    return LogEntry(RunEvent(id=_event_id(stream_id), data=failed))


def _event_id(stream_id: str) -> int:
    return int(stream_id.partition("-")[0])


def merge_text(steps: Iterable[tuple[EventData, str]]) -> list[tuple[EventData, str]]:
    """Merge neighbouring tokens into one; a restart begins a token of its own."""
    merged: list[tuple[EventData, str]] = []
    for data, state in steps:
        before = merged[-1][0] if merged else None
        if isinstance(data, Token) and isinstance(before, Token) and not data.restart:
            merged[-1] = (Token(text=before.text + data.text, restart=before.restart), "")
        elif isinstance(data, Reasoning) and isinstance(before, Reasoning):
            merged[-1] = (Reasoning(text=before.text + data.text), "")
        else:
            merged.append((data, state))
    return merged


class RunEventLog:
    """Reads and registers runs in Redis, whichever process runs them."""

    def __init__(
        self,
        redis: Redis,
        settings: RunSettings,
        metrics: RunMetrics = NO_METRICS,
        availability: RedisAvailability | None = None,
    ) -> None:
        self._redis: Any = redis
        self._metrics = metrics
        self._settings = settings
        self._reader = StreamReader(redis, BLOCK_S)
        self._availability = availability or RedisAvailability()

    async def read_forever(self) -> None:
        """Read the streams of all runs that are followed here, until cancelled."""
        await self._reader.read_forever()

    async def claim(self, context: Context, request: ChatRequest, key: str | None) -> Claim:
        """Register the run `context.run_id`.

        Where the tenant's `key` came before, this returns the run that it began. A run that is registered is run, even
        if nobody starts it, unless it is withdrawn.

        Raises:
            KeyReused: the key came with another request.
            StoreUnavailable: Redis did not answer.
        """
        run = RunKeys(context.tenant, context.run_id)
        keys = [run.run, UNFINISHED_RUNS, *_key_of(context, key)]
        ttls = (self._settings.steps_ttl_s, START_WITHIN_MS, min(IDEMPOTENCY_KEY_TTL_S, self._settings.steps_ttl_s))
        registered = (_digest(request.model_dump_json()), *registration_arguments(context, request))
        outcome, *joined = await self._call(
            lambda: self._redis.eval(scripts.CLAIM, len(keys), *keys, run.member, *ttls, *registered)
        )
        if outcome == "reused":
            raise KeyReused("This Idempotency-Key came earlier with another body; take a new key for a new request")
        run_id = RunKeys.of(joined[0]).run_id if joined else context.run_id
        return Claim(run_id=run_id, fresh=outcome == "fresh")

    async def withdraw(self, context: Context, key: str | None, why: Overloaded) -> bool:
        """Take back the run `context.run_id`, claimed with `key`, which the agents refused.

        Requests that joined it meanwhile get `why`, and the key begins another run the next time. Returns False, and
        nothing is changed, where a process has taken the run by itself.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        run = RunKeys(context.tenant, context.run_id)
        keys = [run.run, UNFINISHED_RUNS, run.steps, *_key_of(context, key)]
        last = Failed(error=Failure.of(why, context.request_id))
        ttl_s = min(WITHDRAWN_TTL_S, self._settings.steps_ttl_s)
        ending = (ttl_s, last.event, last.model_dump_json())
        return bool(await self._call(lambda: self._redis.eval(scripts.WITHDRAW, len(keys), *keys, run.member, *ending)))

    async def run(self, context: Context, run_id: str) -> RunRecord:
        """Return the state of a run.

        Raises:
            NotFound: the tenant has no such run, or its time is over.
            StoreUnavailable: Redis did not answer.
        """
        keys = RunKeys(context.tenant, run_id)
        fields = ("session_id", "status", "created_at", "adoptions", "last")
        session_id, status, created_at, adoptions, last = await self._call(lambda: self._redis.hmget(keys.run, *fields))
        if status is None:
            raise _not_found(run_id)
        ended = parse_readable(await self._call(lambda: self._redis.xrevrange(keys.steps, count=1)))
        data = ended[0].event.data if ended else None
        try:
            return RunRecord(
                run_id=run_id,
                session_id=session_id,
                status=status,
                created_at=created_at,
                adoptions=adoptions,
                last_event_id=last,
                answer=data if isinstance(data, Answer) else None,
                error=data.error if isinstance(data, Failed) else None,
            )
        except ValidationError as error:
            raise StoreCorrupt("What Redis keeps of this run cannot be read") from error

    async def events(self, context: Context, run_id: str, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        """Yield the run's events after the event `after` as they happen, to the last.

        Raises:
            NotFound: the tenant has no such run, or its time is over.
            StoreUnavailable: Redis did not answer.
        """
        keys = RunKeys(context.tenant, run_id)
        status, last = await self._call(lambda: self._redis.hmget(keys.run, "status", "last"))
        if status is None:
            raise _not_found(run_id)
        logged = _parse_number(last)
        if status not in UNFINISHED_STATUSES and after >= logged:
            return
        start = min(after, logged)  # a client that names an event of the future still has to see the run end
        with self._reader.follow(keys.steps, keys.tokens, after=f"{start}-0") as subscription:
            entries = parse_readable(await self._availability.call_until(lambda: read_rows(self._redis, keys, start)))
            while True:
                for each in entries:
                    if each.event.id > after:
                        after = each.event.id
                        yield each.event
                    if each.event.last:
                        return
                entries = parse_readable(await subscription.get())

    async def cancel(self, context: Context, run_id: str) -> RunRecord:
        """End a run without an answer; one that has ended stays as it is.

        Returns the state of the run after that.

        Raises:
            NotFound: the tenant has no such run, or its time is over.
            StoreUnavailable: Redis did not answer.
        """
        keys = RunKeys(context.tenant, run_id)
        if not await self._availability.call_until(
            lambda: cancel_run(self._redis, keys, self._settings.steps_ttl_s, self._metrics)
        ):
            raise _not_found(run_id)
        return await self.run(context, run_id)

    async def _call(self, command: Callable[[], Awaitable[T]]) -> T:
        """Call Redis, and try again while it is away for a moment."""

        async def attempt() -> T:
            with translate_redis_errors():
                return await command()

        return await self._availability.call_until(attempt)


def _key_of(context: Context, key: str | None) -> list[str]:
    """The Redis key of the idempotency key, if there is one."""
    return [] if key is None else [idempotency_key(context.tenant, _digest(key))]


def _parse_number(written: str | None) -> int:
    try:
        return int(written or "")
    except ValueError:
        raise StoreCorrupt("What Redis keeps of this run cannot be read") from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _not_found(run_id: str) -> NotFound:
    return NotFound(f"There is no run {run_id}")


async def read_rows(redis: Any, keys: RunKeys, after: int) -> list[Row]:
    """Read both streams of a run after the event `after`, at one moment.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    with translate_redis_errors():
        async with redis.pipeline(transaction=True) as pipe:
            pipe.xrange(keys.steps, f"({after}-0")
            pipe.xrange(keys.tokens, f"({after}-0")
            steps, tokens = await pipe.execute()
    return [*steps, *tokens]


def registration_arguments(context: Context, request: ChatRequest) -> tuple[str, str, str, float]:
    """The arguments of the scripts that register a run: session, context, request and time."""
    return context.session_id, context.model_dump_json(), request.model_dump_json(), time.time()


async def cancel_run(redis: Redis, run: RunKeys, ttl_s: int, metrics: RunMetrics = NO_METRICS) -> bool:
    """End the run and have its owner stop; False where there is no such run.

    A run that has ended stays as it is. The last event is in the log at once, where its followers read it. Whatever the
    owner still writes is refused.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    client: Any = redis
    last = Cancelled(run_id=run.run_id)
    keys = (run.run, UNFINISHED_RUNS, run.steps)
    with translate_redis_errors():
        ending = ("cancelled", last.event, last.model_dump_json(), "")
        outcome, *ended = await client.eval(scripts.END, len(keys), *keys, run.member, ttl_s, *ending)
        if not ended:
            return bool(outcome != "missing")
        owner, registered_at = ended
        metrics.count_end(last, time.time() - float(registered_at))
        if owner:
            async with client.pipeline(transaction=True) as pipe:
                pipe.xadd(control_stream(owner), {"run": run.member}, maxlen=CONTROL_LENGTH)
                pipe.expire(control_stream(owner), CONTROL_TTL_S)
                await pipe.execute()
    return True
