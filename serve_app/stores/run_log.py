"""The log lines about a run, collected from all processes in Redis."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from serve_app.errors import NotFound, StoreUnavailable
from serve_app.stores.redis import is_key_error, to_store_error, translate_redis_errors
from serve_app.stores.redis_keys import RunKeys
from serve_app.values import RunLogLine, RunLogLines

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from serve_app.observability.logs import RunLogHandler
    from serve_app.values import Context

logger = logging.getLogger(__name__)

WRITE_EVERY_S = 0.5
MAX_LINES = 200
"""Of one run, the latest: a turn of many steps has fifty."""
MAX_ENTRIES = 100
"""Of one run; each has the lines that one process logged within `WRITE_EVERY_S`."""
SHOWN_CHARACTERS = 200
"""Of a line that cannot be parsed."""
_COMMON_FIELDS = ("ts", "level", "event", "deployment", "replica", "exception", "run_id")


class RunLogStore:
    """The log lines of runs in Redis, kept as long as the runs are."""

    def __init__(self, redis: Redis, ttl_s: int) -> None:
        self._redis: Any = redis
        self._ttl_s = ttl_s

    async def write_forever(self, handler: RunLogHandler) -> None:
        """Write the handler's lines twice a second; without Redis they are dropped and counted."""
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            lines = handler.drain()
            if not lines:
                continue
            try:
                handler.dropped += await self._write(lines)
            except StoreUnavailable:
                handler.dropped += len(lines)
                continue
            except Exception:
                handler.dropped += len(lines)
                logger.exception("run_lines_not_written")
                continue
            if handler.dropped:
                dropped, handler.dropped = handler.dropped, 0
                logger.warning("run_lines_dropped", extra={"count": dropped})

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

    async def _write(self, lines: list[tuple[str, str, str]]) -> int:
        """Write lines, each with tenant and run id; return how many corrupt keys refused."""
        by_run = defaultdict(list)
        for tenant, run_id, line in lines:
            by_run[RunKeys(tenant, run_id).lines].append(line)
        with translate_redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for stream, of_run in by_run.items():
                    entry = {"line": "\n".join(of_run[-MAX_LINES:])}
                    pipe.xadd(stream, entry, maxlen=MAX_ENTRIES, approximate=False)
                    pipe.expire(stream, self._ttl_s)
                replies = (await pipe.execute(raise_on_error=False))[::2]
        refused = [len(of_run) for of_run, reply in zip(by_run.values(), replies, strict=True) if is_key_error(reply)]
        if failed := next((each for each in replies if isinstance(each, RedisError) and not is_key_error(each)), None):
            raise to_store_error(failed)
        return sum(refused)


def _parse_line(text: str) -> RunLogLine | None:
    """Return the line; None if it is not valid, which is logged."""
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
