"""Measures what tracing costs a turn.

    python tests/benchmarks/tracing_cost.py [--turns 400] [--rounds 5]

Runs turns of one tool call each, eight at a time, in a worker in this process, with the offline model and a real Redis.
LangSmith and the OTLP collector run in a process of their own. Each round measures tracing off, at 10 % and at 100 %.
Prints the processor time of this process per turn, with the exporters' threads, and the turns per second.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parent.parent))

from collectors import DroppedSpans, langsmith, otlp
from session_length import hosted, turn

from serve_app.config import ObservabilitySettings, RedisSettings
from serve_app.deployments.embedded_stores import EmbeddedStores, choose_ports
from serve_app.observability.redaction import Redactor
from serve_app.observability.spans import NullTracer
from serve_app.observability.tracing import create_tracer, disable_langchain_tracing
from serve_app.stores.redis import create_redis_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.asyncio import Redis

    from serve_app.ports import Tracer

AT_ONCE = 8
SHARES = {"off": None, "10 %": 0.1, "100 %": 1.0}


def _collect(parent: Any) -> None:
    """Serve both collectors until the parent sends a message."""
    with langsmith() as one, otlp() as other:
        parent.send((one.url, other.url))
        parent.recv()


@contextmanager
def _sinks() -> Iterator[None]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_collect, args=(theirs,))
    process.start()
    urls = ours.recv()
    os.environ.update(LANGSMITH_TRACING="true", LANGSMITH_ENDPOINT=urls[0], LANGSMITH_API_KEY="key")
    os.environ.update(OTEL_EXPORTER_OTLP_ENDPOINT=urls[1])
    disable_langchain_tracing()
    try:
        yield
    finally:
        ours.send("stop")
        process.join(10)


def _tracer(share: float | None, dropped: DroppedSpans) -> Tracer:
    return (
        NullTracer()
        if share is None
        else create_tracer(ObservabilitySettings(trace_sampling=share), Redactor(), dropped)
    )


async def _block(redis: Redis, traced: Tracer, turns: int) -> tuple[float, float]:
    """Seconds of processor and of wall time for so many turns and most of their export."""
    async with hosted(redis, traced) as host:

        async def some(count: int) -> None:
            for number in range(count):
                await turn(host, uuid4().hex, number)

        await some(10)
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        await asyncio.gather(*(some(turns // AT_ONCE) for _ in range(AT_ONCE)))
        return time.process_time() - cpu_s, time.perf_counter() - wall_s


async def _main(turns: int, rounds: int) -> None:
    dropped = DroppedSpans()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in SHARES}
    with tempfile.TemporaryDirectory() as folder, _sinks():
        ports = choose_ports(Path(folder))
        stores = EmbeddedStores(Path(folder), ports, redis=True, milvus=False)
        stores.start()
        redis = create_redis_client(RedisSettings(), f"redis://127.0.0.1:{ports.redis}/0")
        tracers = {name: _tracer(share, dropped) for name, share in SHARES.items()}
        try:
            for traced in tracers.values():
                await _block(redis, traced, 100)  # imports the clients
            for _ in range(rounds):
                for name, traced in tracers.items():
                    taken[name].append(await _block(redis, traced, turns))
            for traced in tracers.values():
                await traced.shutdown()
        finally:
            await redis.aclose()
            stores.stop()
    off_us = median(cpu_s for cpu_s, _ in taken["off"]) / turns * 1e6
    off_rate = median(turns / wall_s for _, wall_s in taken["off"])
    for name, blocks in taken.items():
        us, rate = median(cpu_s for cpu_s, _ in blocks) / turns * 1e6, median(turns / wall_s for _, wall_s in blocks)
        print(f"{name:>6}: {us:6.0f} µs of processor a turn (+{us - off_us:.0f}), ", end="")
        print(f"{rate:5.0f} turns/s ({rate / off_rate:.0%}), dropped spans: {dict(dropped.counted)}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    asyncio.run(_main(options.turns, options.rounds))
