"""The log of requests: the run that a request started, or its refusal."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from serve_app.errors import NotFound, StoreUnavailable
from serve_app.stores.redis import translate_redis_errors
from serve_app.stores.redis_keys import refusals_key, request_key
from serve_app.values import DEFAULT_TENANT, RequestLogLines, RunLogLine

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from serve_app.stores.run_log import RunLogStore
    from serve_app.values import Context

logger = logging.getLogger(__name__)

WRITE_EVERY_S = 0.5
MAX_PENDING = 5_000
"""Entries that wait to be written; the oldest are dropped."""
MAX_REFUSALS = 1_000
"""Refusals of one tenant, the latest."""
UNKNOWN_TENANT = ""
"""The tenant of a request without a valid key; operators, whose tenant is the default one, read its refusals."""


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

    async def write_forever(self) -> None:
        """Write the added entries, for ever.

        While Redis is away they are dropped, and their number is logged later.
        """
        dropped = 0
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            entries = [self._pending.popleft() for _ in range(len(self._pending))]
            if not entries:
                continue
            try:
                await self._write(entries)
            except StoreUnavailable:
                dropped += len(entries)
                continue
            except Exception:
                dropped += len(entries)
                logger.exception("request_log_not_written")
                continue
            if dropped:
                logger.warning("request_log_dropped", extra={"count": dropped})
                dropped = 0

    async def read(self, context: Context, request_id: str) -> RequestLogLines:
        """The run of a request with its log lines, and the line of its refusal.

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
            if fields.get("request") == request_id and (line := _parse_line(fields.get("line", "")))
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

    async def _write(self, entries: list[_Link | _Refusal]) -> None:
        with translate_redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for entry in entries:
                    if isinstance(entry, _Link):
                        pipe.set(entry.key, entry.run_id, ex=self._ttl_s)
                    else:
                        fields = {"request": entry.request_id, "line": entry.line}
                        pipe.xadd(entry.stream, fields, maxlen=MAX_REFUSALS, approximate=False)
                        pipe.expire(entry.stream, self._ttl_s)
                await pipe.execute()


def _parse_line(text: str) -> RunLogLine | None:
    """The line; None where it cannot be parsed."""
    try:
        return RunLogLine.model_validate_json(text)
    except ValidationError:
        logger.warning("request_log_unreadable", extra={"line": text[:200]})
        return None
