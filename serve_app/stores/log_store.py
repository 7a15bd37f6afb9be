"""The log lines of runs and requests, collected from all processes in Redis."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from pydantic import ValidationError
from redis.exceptions import RedisError

from serve_app.errors import NotFound, StoreUnavailable
from serve_app.stores.redis import is_key_error, to_store_error, translate_redis_errors
from serve_app.stores.redis_keys import RunKeys, refusals_key, request_key
from serve_app.values import DEFAULT_TENANT, RequestLogLines, RunLogLine, RunLogLines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from redis.asyncio import Redis

    from serve_app.observability.logs import RunLine, RunLogHandler
    from serve_app.values import Context

T = TypeVar("T")
logger = logging.getLogger(__name__)

WRITE_EVERY_S = 0.5
MAX_LINES = 200
"""Of one run, the latest: a turn of many steps has fifty."""
MAX_ENTRIES = 100
"""Of one run; each has the lines that one process logged within `WRITE_EVERY_S`."""
MAX_PENDING = 5_000
"""Entries about requests that wait to be written; the oldest are dropped."""
MAX_REFUSALS = 1_000
"""Refusals of one tenant, the latest."""
SHOWN_CHARACTERS = 200
"""Of a line that cannot be parsed."""
UNKNOWN_TENANT = ""
"""The tenant of a request without a valid key; operators, whose tenant is the default one, read its refusals."""
_COMMON_FIELDS = ("ts", "level", "event", "deployment", "replica", "exception", "run_id")


class RunLogStore:
    """The log lines of runs in Redis, kept as long as the runs are."""

    def __init__(self, redis: Redis, ttl_s: int) -> None:
        self._redis: Any = redis
        self._ttl_s = ttl_s

    async def write_forever(self, handler: RunLogHandler) -> None:
        """Write the handler's lines twice a second; without Redis they are dropped and counted."""
        await _write_forever(handler, self._write, "run_lines_not_written", "run_lines_dropped")

    async def read(self, context: Context, run_id: str) -> RunLogLines:
        """Return the latest lines about the run, in order.

        Raises:
            NotFound: the tenant has no such run, or the run has expired.
            StoreUnavailable: Redis did not answer.
        """
        keys = RunKeys(context.tenant, run_id)
        with translate_redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.exists(keys.run)
                pipe.xrange(keys.lines)
                exists, entries = await pipe.execute()
        if not exists and not entries:
            raise NotFound(f"There is no run {run_id}")
        texts = [line for _, fields in entries for line in fields.get("line", "").split("\n")]
        lines = [line for text in texts if (line := _parse_line(text))]
        return RunLogLines(run_id=run_id, lines=tuple(sorted(lines, key=lambda line: line.ts)[-MAX_LINES:]))

    async def _write(self, lines: list[RunLine]) -> int:
        by_stream = defaultdict(list)
        for tenant, run_id, line in lines:
            by_stream[RunKeys(tenant, run_id).lines].append(line)
        with translate_redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for stream, texts in by_stream.items():
                    entry = {"line": "\n".join(texts[-MAX_LINES:])}
                    pipe.xadd(stream, entry, maxlen=MAX_ENTRIES, approximate=False)
                for stream in by_stream:
                    pipe.expire(stream, self._ttl_s)
                replies = await pipe.execute(raise_on_error=False)
        return _count_refused(zip(map(len, by_stream.values()), replies, strict=False))


class _Link(NamedTuple):
    key: str
    run_id: str


class _Refusal(NamedTuple):
    stream: str
    request_id: str
    line: str


class RequestLogStore:
    """Runs and refusals by request id, in Redis.

    Adding an entry never waits for Redis.
    """

    def __init__(self, redis: Redis, runs: RunLogStore, ttl_s: int) -> None:
        self.dropped = 0
        self._redis: Any = redis
        self._runs = runs
        self._ttl_s = ttl_s
        self._pending = deque[_Link | _Refusal](maxlen=MAX_PENDING)

    def link_run(self, context: Context) -> None:
        """Note that the request of `context` has started its run, or joined it."""
        self._pending.append(_Link(request_key(context.tenant, context.request_id), context.run_id))

    def add_line(self, tenant: str, request_id: str, line: RunLogLine) -> None:
        """Note the refusal of a request; `UNKNOWN_TENANT` where it had no valid key."""
        self._pending.append(_Refusal(refusals_key(tenant), request_id, line.model_dump_json()))

    def drain(self) -> list[_Link | _Refusal]:
        """Take all entries that wait to be written."""
        return [self._pending.popleft() for _ in range(len(self._pending))]

    async def write_forever(self) -> None:
        """Write the added entries twice a second; without Redis they are dropped and counted."""
        await _write_forever(self, self._write, "request_log_not_written", "request_log_dropped")

    async def read(self, context: Context, request_id: str) -> RequestLogLines:
        """Return the log lines of a request's run, and of its refusal.

        Raises:
            NotFound: the tenant has no such request, or nothing of it was logged.
            StoreUnavailable: Redis did not answer.
        """
        tenants = (context.tenant, UNKNOWN_TENANT) if context.tenant == DEFAULT_TENANT else (context.tenant,)
        with translate_redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.get(request_key(context.tenant, request_id))
                for tenant in tenants:
                    pipe.xrange(refusals_key(tenant))
                run_id, *refusals = await pipe.execute()
        lines = [
            line
            for stream in refusals
            for _, fields in stream
            if fields.get("request") == request_id and (line := _parse_refusal(fields.get("line", "")))
        ]
        if run_id:
            try:
                lines += (await self._runs.read(context, run_id)).lines
            except NotFound:  # the agents refused the run
                run_id = None
        if not run_id and not lines:
            raise NotFound("Nothing is logged of this request; in a flood of refusals only a sample is logged")
        return RequestLogLines(
            request_id=request_id, run_id=run_id, lines=tuple(sorted(lines, key=lambda line: line.ts))
        )

    async def _write(self, entries: list[_Link | _Refusal]) -> int:
        with translate_redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for entry in entries:
                    if isinstance(entry, _Link):
                        pipe.set(entry.key, entry.run_id, ex=self._ttl_s)
                    else:
                        fields = {"request": entry.request_id, "line": entry.line}
                        pipe.xadd(entry.stream, fields, maxlen=MAX_REFUSALS, approximate=False)
                for stream in {entry.stream for entry in entries if isinstance(entry, _Refusal)}:
                    pipe.expire(stream, self._ttl_s)
                replies = await pipe.execute(raise_on_error=False)
        return _count_refused((1, reply) for _, reply in zip(entries, replies, strict=False))


class _Pending(Protocol[T]):
    """Entries that wait to be written, and the number of those that were lost."""

    dropped: int

    def drain(self) -> list[T]:
        """Take all entries that wait."""
        ...


async def _write_forever(
    pending: _Pending[T], write: Callable[[list[T]], Awaitable[int]], not_written: str, dropped: str
) -> None:
    """Write what is pending twice a second, for ever.

    `write` returns how many entries corrupt keys refused. While Redis is away, entries are dropped; their number is
    logged once it is back. `not_written` and `dropped` are the names of the log events.
    """
    while True:
        await asyncio.sleep(WRITE_EVERY_S)
        entries = pending.drain()
        if not entries:
            continue
        try:
            pending.dropped += await write(entries)
        except StoreUnavailable:
            pending.dropped += len(entries)
            continue
        except Exception:
            pending.dropped += len(entries)
            logger.exception(not_written)
            continue
        if pending.dropped:
            count, pending.dropped = pending.dropped, 0
            logger.warning(dropped, extra={"count": count})


def _count_refused(replies: Iterable[tuple[int, object]]) -> int:
    """Return how many entries corrupt keys refused; each reply comes with its number of them.

    Raises:
        StoreUnavailable: a reply is an error of the server.
    """
    refused = 0
    for entries, reply in replies:
        if is_key_error(reply):
            refused += entries
        elif isinstance(reply, RedisError):
            raise to_store_error(reply)
    return refused


def _parse_line(text: str) -> RunLogLine | None:
    """Return a run's line; None if it is not valid, which is logged."""
    try:
        return _to_line(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError):
        logger.warning("run_line_unreadable", extra={"line": text[:SHOWN_CHARACTERS]})
        return None


def _to_line(record: dict[str, Any]) -> RunLogLine:
    return RunLogLine(
        ts=record["ts"],
        level=record["level"],
        process=" ".join(filter(None, (record.get("deployment"), record.get("replica")))),
        event=record.get("event") or record.get("message", ""),
        fields={name: value for name, value in record.items() if name not in _COMMON_FIELDS},
        exception=record.get("exception"),
    )


def _parse_refusal(text: str) -> RunLogLine | None:
    """Return a refusal's line; None if it is not valid, which is logged."""
    try:
        return RunLogLine.model_validate_json(text)
    except ValidationError:
        logger.warning("request_log_unreadable", extra={"line": text[:SHOWN_CHARACTERS]})
        return None
