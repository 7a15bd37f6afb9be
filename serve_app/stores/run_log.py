"""What have all processes told of one run, in order?"""

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

    from serve_app.observability.run_log_handler import RunLogHandler
    from serve_app.values import Context

logger = logging.getLogger(__name__)

WRITE_EVERY_S = 0.5
MAX_LINES = 200
"""Of one run, the latest: a turn of many steps has fifty."""
MAX_ENTRIES = 100
"""Of one run, each with what one process told within `EVERY_S`."""

SHOWN_CHARACTERS = 200
"""Of a line that cannot be read."""

_OWN = ("ts", "level", "event", "deployment", "replica", "exception", "run_id")


class RunLogStore:
    """The lines of runs in Redis, kept as long as the runs are."""

    def __init__(self, redis: Redis, ttl_s: int) -> None:
        self._redis: Any = redis
        self._ttl_s = ttl_s

    async def write_forever(self, trail: RunLogHandler) -> None:
        """Write what this process tells, for ever; while Redis is away it is dropped, and how much is told later."""
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            told = trail.drain()
            if not told:
                continue
            try:
                trail.dropped += await self._write(told)
            except StoreUnavailable:
                trail.dropped += len(told)
                continue
            except Exception:
                trail.dropped += len(told)
                logger.exception("run_lines_not_written")
                continue
            if trail.dropped:
                dropped, trail.dropped = trail.dropped, 0
                logger.warning("run_lines_dropped", extra={"count": dropped})

    async def read(self, context: Context, run_id: str) -> RunLogLines:
        """The latest lines about the run, in order.

        Raises:
            NotFound: the tenant has no such run, or its time is over.
            StoreUnavailable: Redis did not answer.
        """
        keys = RunKeys(context.tenant, run_id)
        with translate_redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.exists(keys.run)
                pipe.xrange(keys.lines)
                known, entries = await pipe.execute()
        if not known and not entries:
            raise NotFound(f"There is no run {run_id}")
        texts = [line for _, fields in entries for line in fields.get("line", "").split("\n")]
        lines = [line for text in texts if (line := _readable(text))]
        return RunLogLines(run_id=run_id, lines=tuple(sorted(lines, key=lambda line: line.ts)[-MAX_LINES:]))

    async def _write(self, told: list[tuple[str, str, str]]) -> int:
        """Write what can be; how many lines found no place, because their run's key is corrupt."""
        by_run = defaultdict(list)
        for tenant, run_id, line in told:
            by_run[RunKeys(tenant, run_id).lines].append(line)
        with translate_redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for stream, lines in by_run.items():
                    entry = {"line": "\n".join(lines[-MAX_LINES:])}
                    pipe.xadd(stream, entry, maxlen=MAX_ENTRIES, approximate=False)
                    pipe.expire(stream, self._ttl_s)
                outcomes = (await pipe.execute(raise_on_error=False))[::2]
        refused = [len(lines) for lines, each in zip(by_run.values(), outcomes, strict=True) if is_key_error(each)]
        if failed := next((each for each in outcomes if isinstance(each, RedisError) and not is_key_error(each)), None):
            raise to_store_error(failed)
        return sum(refused)


def _readable(text: str) -> RunLogLine | None:
    """The line; None of one that nobody can read."""
    try:
        return _line(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError):
        logger.warning("run_line_unreadable", extra={"line": text[:SHOWN_CHARACTERS]})
        return None


def _line(told: dict[str, Any]) -> RunLogLine:
    return RunLogLine(
        ts=told["ts"],
        level=told["level"],
        process=" ".join(filter(None, (told.get("deployment"), told.get("replica")))),
        event=told.get("event") or told.get("message", ""),
        fields={name: value for name, value in told.items() if name not in _OWN},
        exception=told.get("exception"),
    )
