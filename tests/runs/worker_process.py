"""Test harness: a run worker as a process of its own, which can die without releasing anything."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from serve_app.config import MemorySettings, RunSettings
from serve_app.memory import ConversationMemory
from serve_app.observability.metrics import InMemoryMetrics
from serve_app.resilience.tasks import cancel_and_wait
from serve_app.runs.event_writer import EventWriter
from serve_app.runs.execution import RunServices
from serve_app.runs.metrics import RunMetrics
from serve_app.runs.store import RunStore
from serve_app.runs.worker import RunWorker
from serve_app.stores.availability import MAX_WAIT_S, RedisAvailability
from serve_app.stores.redis_keys import UNFINISHED_RUNS
from serve_app.values import Answer, ChatRequest, Context, RunEvent, Token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from serve_app.runs.run import Run


def context(
    session: str = "s", seconds: float = 20, run_id: str | None = None, tenant: str = "default", behind_s: float = 0
) -> Context:
    """What a request has that is given so many seconds, and comes to a process whose clock is behind by so many."""
    return Context(
        request_id="q",
        run_id=run_id or uuid4().hex,
        session_id=session,
        tenant=tenant,
        deadline=time.time() + behind_s + seconds,
        timeout_s=seconds,
    )


def request(session: str = "s", text: str = "hello", *, stream: bool = True) -> ChatRequest:
    return ChatRequest(user_input=text, session_id=session, stream=stream)


def answer(run: Run, text: str = "Hi.") -> Answer:
    return Answer(result=text, session_id=run.context.session_id, run_id=run.context.run_id, model="m")


async def greet(run: Run) -> Answer:
    """A turn of three words."""
    for word in ("How ", "do you ", "do."):
        run.stream(Token(text=word))
        await asyncio.sleep(0.03)
    run.exchange = '{"said": "How do you do."}'
    return answer(run, "How do you do.")


@dataclass
class WorkerProcess:
    """A run worker as a process of its own: it can die without releasing anything."""

    redis: Redis
    work: Callable[[Run], Awaitable[Answer]] = greet
    settings: dict[str, Any] = field(default_factory=dict)
    max_runs: int = 100
    metrics: InMemoryMetrics = field(default_factory=InMemoryMetrics)
    max_wait_s: float = MAX_WAIT_S
    """How long it waits for a Redis that is away."""

    def __post_init__(self) -> None:
        runs = RunSettings(**self.settings)
        self.store = RunStore(
            self.redis, runs, ConversationMemory(self.redis, MemorySettings(), self.metrics), uuid4().hex
        )
        writer = EventWriter(
            self.store, RedisAvailability(self.max_wait_s), RunMetrics(self.metrics, frozenset({"look"}))
        )
        self.worker = RunWorker(RunServices(self.redis, self.store, writer, runs, self.work), self.max_runs)

    async def events(self, turn_context: Context, request: ChatRequest, after: int = 0) -> list[RunEvent]:
        return [event async for event in self.worker.follow(turn_context, request, after)]

    async def expire_leases(self) -> None:
        """Have the time of its leases be over: whoever looks next finds the runs of a dead process."""
        for member in await self.redis.zrange(UNFINISHED_RUNS, 0, -1):
            await self.redis.zadd(UNFINISHED_RUNS, {member: 1})

    async def die(self) -> None:
        """Stop like a process that gets SIGKILL: nothing is released, nobody is notified."""
        tasks = [*self.worker._background, *self.worker._tasks]
        for execution in self.worker._executions.values():
            execution.feed.close()
            tasks += [execution.run.work] if execution.run and execution.run.work else []
            execution.services = None  # type: ignore[assignment]  # whatever it still tries fails
        await cancel_and_wait(*tasks)
