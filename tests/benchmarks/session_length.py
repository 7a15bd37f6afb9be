"""Compares the thousandth turn of a session with the first turns.

    python tests/benchmarks/session_length.py [--turns 1000]

Runs turns of one session, each with a tool call, in a host in this process, with the offline model and a real Redis;
prints how long the first and the last of them took, and how many bytes they take up in Redis.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from serve_app.agent.tool_dispatch import ToolDispatcher
from serve_app.agent.turn import Turn
from serve_app.config import RedisSettings, Settings, ToolSettings
from serve_app.deployments.embedded_stores import EmbeddedStores, choose_ports
from serve_app.llm.models import build_model
from serve_app.memory import ConversationMemory
from serve_app.observability.spans import NullTracer
from serve_app.runs.event_writer import EventWriter
from serve_app.runs.execution import RunServices
from serve_app.runs.store import RunStore
from serve_app.runs.worker import RunWorker
from serve_app.stores.redis import create_redis_client
from serve_app.tools.registry import ToolRegistry
from serve_app.values import Answer, ChatRequest, Context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from serve_app.ports import Tracer

SESSION = "long"
ORDERS = {"order_query": ToolSettings(function="serve_app.tools.orders:order_query", attempts=1)}
WARM_UP = 10
"""Turns of another session that come before: the first ones import and connect."""


@dataclass(frozen=True)
class Measured:
    """Of each stretch of turns, one after the other: the median time of a turn, and what Redis holds more after it."""

    turns: int
    median_s: list[float]
    bytes_per_turn: list[float]

    @property
    def slower(self) -> float:
        """What a turn of the last stretch takes, of the first one 1."""
        return self.median_s[-1] / self.median_s[0]

    @property
    def larger(self) -> float:
        """What a turn of the last stretch takes up, of the first one 1."""
        return self.bytes_per_turn[-1] / self.bytes_per_turn[0]


async def measured(redis: Redis, turns: int, stretches: int) -> Measured:
    """So many turns of one session, in so many stretches; `redis` has to be empty."""
    medians, sizes = [], []
    async with hosted(redis) as host:
        for each in range(WARM_UP):
            await turn(host, f"warm-up-{each}", each)
        before = await _bytes(redis)
        for stretch in range(stretches):
            count = turns // stretches
            medians.append(median([await turn(host, SESSION, stretch * count + each) for each in range(count)]))
            after = await _bytes(redis)
            sizes.append((after - before) / count)
            before = after
    return Measured(turns // stretches * stretches, medians, sizes)


async def turn(host: RunWorker, session: str, number: int) -> float:
    """How long one turn takes, from the question to the answer."""
    context = Context(request_id="r", run_id=uuid4().hex, session_id=session, deadline=time.time() + 30)
    request = ChatRequest(user_input=f"Where is order OD-{number:08}?", session_id=session)
    begun = time.perf_counter()
    last = [event async for event in host.follow(context, request, 0)][-1]
    took = time.perf_counter() - begun
    if not isinstance(last.data, Answer) or len(last.data.tool_calls) != 1:
        raise RuntimeError(f"turn {number} ended with {last}")
    return took


@asynccontextmanager
async def hosted(redis: Redis, tracer: Tracer | None = None) -> AsyncIterator[RunWorker]:
    """A process that runs turns with the offline model."""
    settings = Settings()
    with tempfile.TemporaryDirectory() as folder:
        orders = settings.orders.model_copy(update={"file": Path(folder) / "orders.json"})
        orders.file.write_text("{}")
        belt = ToolDispatcher(ToolRegistry(ORDERS, [orders]), _NoRetriever(), settings.knowledge, time.monotonic)  # type: ignore[arg-type]
        memory = ConversationMemory(redis, settings.memory)
        turn = Turn(build_model(settings.model), "offline", belt, memory, settings.agent)
        registry = RunStore(redis, settings.runs, memory, owner="benchmark")
        means = RunServices(redis, registry, EventWriter(registry), settings.runs, turn.run, tracer or NullTracer())
        host = RunWorker(means, max_runs=50)
        try:
            yield host
        finally:
            await host.close(grace_s=1)


class _NoRetriever:
    """Nobody asks for documents here."""


async def _bytes(redis: Any) -> int:
    """What all keys take up."""
    keys = [key async for key in redis.scan_iter(count=1000)]
    async with redis.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.memory_usage(key, samples=0)
        return sum(size or 0 for size in await pipe.execute())


async def _main(turns: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ports = choose_ports(Path(folder))
        stores = EmbeddedStores(Path(folder), ports, redis=True, milvus=False)
        stores.start()
        redis = create_redis_client(RedisSettings(), f"redis://127.0.0.1:{ports.redis}/0")
        try:
            found = await measured(redis, turns, stretches=10)
        finally:
            await redis.aclose()
            stores.stop()
    print(f"{found.turns} turns of one session, by tenths")
    print("p50 of a turn, ms:     ", " ".join(f"{each * 1000:6.2f}" for each in found.median_s))
    print("bytes in Redis a turn: ", " ".join(f"{each:6.0f}" for each in found.bytes_per_turn))
    print(f"the last tenth to the first: {found.slower:.2f} of the time, {found.larger:.2f} of the bytes")


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=1000)
    asyncio.run(_main(parser.parse_args().turns))
