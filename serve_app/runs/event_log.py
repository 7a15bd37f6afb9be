"""What happened in a run, and what is its state, whichever process runs it?"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from serve_app.errors import KeyReused, NotFound, StoreCorrupt
from serve_app.runs import scripts
from serve_app.runs.entries import readable
from serve_app.runs.metrics import NO_METRICS
from serve_app.runs.store import registration, rows_of
from serve_app.stores.availability import RedisAvailability
from serve_app.stores.redis import translate_redis_errors
from serve_app.stores.redis_keys import UNFINISHED_RUNS, RunKeys, control_stream, idempotency_key
from serve_app.stores.stream_reader import StreamReader
from serve_app.values import Answer, Cancelled, Claim, Failed, Failure, RunRecord

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from typing import TypeVar

    from redis.asyncio import Redis

    from serve_app.config import RunSettings
    from serve_app.errors import Overloaded
    from serve_app.runs.metrics import RunMetrics
    from serve_app.values import ChatRequest, Context, RunEvent

    T = TypeVar("T")

UNFINISHED_STATUSES = {"queued", "running"}
KEY_TTL_S = 24 * 3600
"""How long an idempotency key finds its run."""
START_WITHIN_MS = 2_000
"""How long a registered run waits for the process that it was given to."""
WITHDRAWN_TTL_S = 300
"""Whoever joined a run that is withdrawn learns it within so long; nobody else knows of it."""
BLOCK_S = 0.1
"""A follower that comes while others are waited for waits so long at most."""


CONTROL_TTL_S = 60
"""A process that does not read its stream for so long is dead."""
CONTROL_LENGTH = 1000


class RunEventLog:
    """The log of runs in Redis, whichever process runs them."""

    def __init__(self, redis: Redis, settings: RunSettings, tally: RunMetrics = NO_METRICS) -> None:
        self._redis: Any = redis
        self._tally = tally
        self._settings = settings
        self._tail = StreamReader(redis, BLOCK_S)
        self._patience = RedisAvailability()

    async def go_on(self) -> None:
        """Read for those who follow runs, for ever."""
        await self._tail.read_forever()

    async def claim(self, context: Context, request: ChatRequest, key: str | None) -> Claim:
        """Register the run `context.run_id`; where the tenant's `key` came before, the run that it began instead.

        A run that is registered is run, even if nobody starts it, unless it is withdrawn.

        Raises:
            KeyReused: the key came with another request.
            StoreUnavailable: Redis did not answer.
        """
        run = RunKeys(context.tenant, context.run_id)
        keys = [run.run, UNFINISHED_RUNS, *_keys_of(context, key)]
        lives = (self._settings.steps_ttl_s, START_WITHIN_MS, min(KEY_TTL_S, self._settings.steps_ttl_s))
        asked = (_digest(request.model_dump_json()), *registration(context, request))
        outcome, *joined = await self._asked(
            lambda: self._redis.eval(scripts.CLAIM, len(keys), *keys, run.member, *lives, *asked)
        )
        if outcome == "reused":
            raise KeyReused("This Idempotency-Key came earlier with another body; take a new key for a new request")
        run_id = RunKeys.of(joined[0]).run_id if joined else context.run_id
        return Claim(run_id=run_id, fresh=outcome == "fresh")

    async def withdraw(self, context: Context, key: str | None, why: Overloaded) -> bool:
        """Take back the run `context.run_id`, claimed with `key`, which the agents refused.

        Whoever joined it meanwhile reads `why`, and the key begins another run the next time. False, and nothing is
        changed, where a process has taken the run by itself.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        run = RunKeys(context.tenant, context.run_id)
        keys = [run.run, UNFINISHED_RUNS, run.steps, *_keys_of(context, key)]
        last = Failed(error=Failure.of(why, context.request_id))
        ttl_s = min(WITHDRAWN_TTL_S, self._settings.steps_ttl_s)
        ending = (ttl_s, last.event, last.model_dump_json())
        return bool(
            await self._asked(lambda: self._redis.eval(scripts.WITHDRAW, len(keys), *keys, run.member, *ending))
        )

    async def run(self, context: Context, run_id: str) -> RunRecord:
        """The state of a run.

        Raises:
            NotFound: the tenant has no such run, or its time is over.
            StoreUnavailable: Redis did not answer.
        """
        keys = RunKeys(context.tenant, run_id)
        fields = ("session_id", "status", "created_at", "adoptions", "last")
        session_id, status, created_at, adoptions, last = await self._asked(
            lambda: self._redis.hmget(keys.run, *fields)
        )
        if status is None:
            raise _no_such(run_id)
        ended = readable(await self._asked(lambda: self._redis.xrevrange(keys.steps, count=1)))
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
        """The run's events that come after the event `after`, to its last one, as they happen.

        Raises:
            NotFound: the tenant has no such run, or its time is over.
            StoreUnavailable: Redis did not answer.
        """
        keys = RunKeys(context.tenant, run_id)
        status, last = await self._asked(lambda: self._redis.hmget(keys.run, "status", "last"))
        if status is None:
            raise _no_such(run_id)
        logged = _number(last)
        if status not in UNFINISHED_STATUSES and after >= logged:
            return
        start = min(after, logged)  # a client that names an event of the future still has to see the run end
        with self._tail.follow(keys.steps, keys.tokens, after=f"{start}-0") as inbox:
            entries = readable(await self._patience.call_until(lambda: rows_of(self._redis, keys, start)))
            while True:
                for each in entries:
                    if each.event.id > after:
                        after = each.event.id
                        yield each.event
                    if each.event.last:
                        return
                entries = readable(await inbox.get())

    async def cancel(self, context: Context, run_id: str) -> RunRecord:
        """End a run without an answer; one that has ended stays as it is. What became of it.

        Raises:
            NotFound: the tenant has no such run, or its time is over.
            StoreUnavailable: Redis did not answer.
        """
        keys = RunKeys(context.tenant, run_id)
        if not await self._patience.call_until(
            lambda: cancel_run(self._redis, keys, self._settings.steps_ttl_s, self._tally)
        ):
            raise _no_such(run_id)
        return await self.run(context, run_id)

    async def _asked(self, command: Callable[[], Awaitable[T]]) -> T:
        """What Redis says, waited for while it is away for a moment."""

        async def ask() -> T:
            with translate_redis_errors():
                return await command()

        return await self._patience.call_until(ask)


def _keys_of(context: Context, key: str | None) -> list[str]:
    """Where the run of the idempotency key stands, if there is a key."""
    return [] if key is None else [idempotency_key(context.tenant, _digest(key))]


def _number(written: str | None) -> int:
    try:
        return int(written or "")
    except ValueError:
        raise StoreCorrupt("What Redis keeps of this run cannot be read") from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _no_such(run_id: str) -> NotFound:
    return NotFound(f"There is no run {run_id}")


async def cancel_run(redis: Redis, run: RunKeys, ttl_s: int, tally: RunMetrics = NO_METRICS) -> bool:
    """End the run, and tell its owner to stop; False where there is no such run. One that has ended stays as it is.

    The last event is in the log at once, from where its followers have it; whatever the owner still writes is refused.

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
        tally.ended(last, time.time() - float(registered_at))
        if owner:
            async with client.pipeline(transaction=True) as pipe:
                pipe.xadd(control_stream(owner), {"run": run.member}, maxlen=CONTROL_LENGTH)
                pipe.expire(control_stream(owner), CONTROL_TTL_S)
                await pipe.execute()
    return True
