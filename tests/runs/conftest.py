"""Fixtures: run workers, and the event log that their followers read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from worker_process import WorkerProcess

from serve_app.config import RunSettings
from serve_app.resilience.tasks import cancel_and_wait
from serve_app.runs import worker
from serve_app.runs.event_log import RunEventLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis.asyncio import Redis


@pytest.fixture(autouse=True)
def frequent_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers look for lapsed runs ten times a second, so that no test waits for the next look."""
    monkeypatch.setattr(worker, "HEARTBEAT_S", 0.1)


@pytest.fixture
async def start(redis: Redis) -> AsyncIterator[Callable[..., WorkerProcess]]:
    """Starts processes; all of them end with the test."""
    started: list[WorkerProcess] = []

    def begin(*given: object, max_runs: int = 100, **settings: object) -> WorkerProcess:
        started.append(WorkerProcess(redis, *given, settings=settings, max_runs=max_runs))  # type: ignore[arg-type]
        return started[-1]

    yield begin
    for process in started:
        await process.die()


@pytest.fixture
async def log(redis: Redis) -> AsyncIterator[RunEventLog]:
    log = RunEventLog(redis, RunSettings())
    reading = asyncio.create_task(log.read_forever())
    yield log
    await cancel_and_wait(reading)
