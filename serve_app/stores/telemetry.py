"""Metrics of the calls to Redis and Milvus."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from serve_app.observability.metric_catalogue import STORE_CALLS, STORE_S
from serve_app.observability.null import NULL_METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve_app.ports import Metrics

BLOCKING = {"XREAD"}
"""Commands that wait on purpose; their time says nothing."""


@contextmanager
def measure_call(metrics: Metrics, store: str, answers: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """Measure one call in the block; errors of the types `answers` count as ok.

    A cancelled call is not counted.
    """
    begun, outcome = time.monotonic(), "ok"
    try:
        yield
    except asyncio.CancelledError:
        outcome = ""
        raise
    except BaseException as error:
        outcome = "ok" if isinstance(error, answers) else "error"
        raise
    finally:
        if outcome:
            metrics.count(STORE_CALLS, store=store, outcome=outcome)
            metrics.observe(STORE_S, time.monotonic() - begun, store=store)


class MeasuredRedis(Redis):
    """A Redis client that measures each round trip."""

    metrics: Metrics = NULL_METRICS

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        execute: Any = super().execute_command
        if args[0] in BLOCKING:
            return await execute(*args, **options)
        with measure_call(self.metrics, "redis"):
            return await execute(*args, **options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:  # noqa: FBT001, FBT002 - redis-py's signature
        pipe = MeasuredPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.metrics = self.metrics
        return pipe


class MeasuredPipeline(Pipeline):
    """A pipeline, measured as one round trip."""

    metrics: Metrics = NULL_METRICS

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - redis-py's signature
        with measure_call(self.metrics, "redis"):
            return await super().execute(raise_on_error)
