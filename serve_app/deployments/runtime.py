"""Start and stop of a replica's process, the same for every deployment."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from serve_app.deployments.replica_logs import redact_logs
from serve_app.deployments.replica_metrics import RayMetrics
from serve_app.errors import Internal
from serve_app.observability.metrics import NULL_METRICS, LoopLoad, report_process_metrics
from serve_app.resilience.tasks import cancel_and_wait
from serve_app.stores.availability import RedisAvailability

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from redis.asyncio import Redis

    from serve_app.config import ObservabilitySettings, RedisSettings
    from serve_app.ports import Metrics

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0
"""For one resource: far above what a healthy one takes, and below Serve's grace time for a replica."""

THREADS = Path("/proc/self/task")

GC_THRESHOLDS = (20_000, 20, 100)
"""A turn makes thousands of short-lived objects. Python's defaults (700, 10, 10) look for garbage several times in each
turn."""


class ReplicaRuntime:
    """The logs, metrics, Redis client and background tasks of one replica.

    A deployment creates it first, registers with `on_close` whatever it opens, calls `check_tasks` in `check_health`,
    and `close` in `__del__`, which Serve awaits when the replica ends.
    """

    def __init__(self, settings: ObservabilitySettings) -> None:
        _schedule_as_batch()
        self.run_log_handler = redact_logs(settings)
        self.metrics: Metrics = RayMetrics() if settings.metrics else NULL_METRICS
        self.redis_availability = RedisAvailability()
        """Of the client that `open_redis` returns."""
        self.loop_load = LoopLoad()
        """Measured from `start_process_metrics` on."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closers: list[tuple[str, Callable[[], Awaitable[None]], float]] = []

    def open_redis(self, settings: RedisSettings, retries: int = 1) -> Redis:
        """Return the Redis client of this process; it connects at its first command."""
        from serve_app.stores.redis import create_redis_client  # not in the processes that run tools

        client = create_redis_client(settings, settings.url, retries, self.metrics)
        self.on_close("redis", client.aclose)
        return client

    def start_task(self, name: str, work: Coroutine[None, None, None]) -> None:
        """Run `work`, which never ends by itself, until `close`.

        It gets an empty context: Serve cancels whatever was started in the context of a call that is cancelled.
        """
        task = self._tasks[name] = asyncio.create_task(work, name=name, context=contextvars.Context())
        self.on_close(name, partial(cancel_and_wait, task))

    def start_process_metrics(self, breakers: Callable[[], Mapping[str, str]] = dict) -> None:
        """Report what the process uses, and the states of its circuit breakers.

        From here on garbage is collected less often: the replica has been made.
        """
        gc.set_threshold(*GC_THRESHOLDS)
        self.start_task("process_metrics", report_process_metrics(self.metrics, breakers, self.loop_load))

    def on_close(self, name: str, close: Callable[[], Awaitable[None]], timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Have `close` called when the replica ends; what is registered last is closed first."""
        self._closers.append((name, close, timeout_s))

    def check_tasks(self) -> None:
        """Check that all background tasks run.

        Raises:
            Internal: one has ended, so that the replica must be replaced.
        """
        ended = [name for name, task in self._tasks.items() if task.done()]
        if ended:
            raise Internal(f"Background tasks have ended: {', '.join(ended)}")

    async def close(self) -> None:
        """Close everything, the latest first; failures and time-outs are logged."""
        while self._closers:
            name, close, timeout_s = self._closers.pop()
            try:
                async with asyncio.timeout(timeout_s):
                    await close()
            except Exception:
                logger.exception("close_failed", extra={"resource": name})


def _schedule_as_batch() -> None:
    """Let a message for this process interrupt no other process: Linux's policy for batch work.

    Several processes take part in a turn. By default each message interrupts whichever runs, so that they drive each
    other from the cores and their caches, which costs a fifth of the CPU time of a turn. The share of the cores that a
    process gets is the same.
    """
    if not THREADS.is_dir():  # not Linux
        return
    for thread in THREADS.iterdir():
        with suppress(OSError):  # the thread has ended, or a sandbox forbids it
            os.sched_setscheduler(int(thread.name), os.SCHED_BATCH, os.sched_param(0))
