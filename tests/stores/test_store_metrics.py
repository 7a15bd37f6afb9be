"""Each round trip to a store is counted, but none that waits on purpose."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import RedisError

from serve_app.config import MilvusSettings, RedisSettings
from serve_app.errors import StoreUnavailable
from serve_app.observability.metric_catalogue import STORE_CALLS, STORE_S
from serve_app.observability.metrics import InMemoryMetrics, measure_call
from serve_app.stores.milvus import CollectionMissing, MilvusCollection
from serve_app.stores.redis import create_redis_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from redis.asyncio import Redis


@pytest.fixture
def metrics() -> InMemoryMetrics:
    return InMemoryMetrics()


@pytest.fixture
async def client(redis_url: str, metrics: InMemoryMetrics) -> AsyncIterator[Redis]:
    client = create_redis_client(RedisSettings(), redis_url, metrics=metrics)
    yield client
    await client.aclose()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Nobody listens on it, and nobody else can."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def calls(metrics: InMemoryMetrics) -> dict[tuple[str, str], float]:
    counts = {(store[1], how[1]): count for (store, how), count in metrics.counted[STORE_CALLS].items()}
    assert sum(counts.values()) == sum(len(values) for values in metrics.observed[STORE_S].values())
    return counts


@pytest.mark.parametrize("transaction", [True, False])
async def test_a_command_and_a_pipeline_are_one_call_each(
    client: Any, metrics: InMemoryMetrics, *, transaction: bool
) -> None:
    await client.set("measured", "1")
    await client.eval("return 1", 0)
    async with client.pipeline(transaction=transaction) as pipe:
        for _ in range(3):
            pipe.get("measured")
        assert await pipe.execute() == ["1"] * 3
    assert calls(metrics) == {("redis", "ok"): 3}


async def test_a_wait_for_entries_is_no_call(client: Any, metrics: InMemoryMetrics) -> None:
    assert not await client.xread({"measured:none": "0"}, block=50)
    assert not calls(metrics)


async def test_a_server_that_is_away_or_refuses_is_an_error(
    client: Any, metrics: InMemoryMetrics, closed_port: int
) -> None:
    with pytest.raises(RedisError):
        await client.execute_command("NOSUCH")
    away: Any = create_redis_client(RedisSettings(timeout_s=0.2), f"redis://127.0.0.1:{closed_port}/0", metrics=metrics)
    with pytest.raises((RedisError, OSError)):
        await away.get("x")
    with pytest.raises((RedisError, OSError)):
        await away.pipeline().get("x").execute()
    await away.aclose()
    assert calls(metrics) == {("redis", "error"): 3}


async def test_a_call_that_is_given_up_says_nothing_of_the_server(metrics: InMemoryMetrics) -> None:
    async def call() -> None:
        with measure_call(metrics, "redis"):
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call(), 0.01)
    assert not calls(metrics)


async def test_milvus_is_counted_and_a_collection_that_is_not_there_is_an_answer(
    milvus_url: str, metrics: InMemoryMetrics, closed_port: int
) -> None:
    there = MilvusCollection(MilvusSettings(url=milvus_url), "measured_none", metrics)
    await there.ping(10)
    with pytest.raises(CollectionMissing):
        await there.describe(10)
    await there.close()
    assert calls(metrics) == {("milvus", "ok"): 2}
    away = MilvusCollection(MilvusSettings(url=f"http://127.0.0.1:{closed_port}"), "measured_none", metrics)
    with pytest.raises(StoreUnavailable):
        await away.ping(0.3)
    await away.close()
    assert calls(metrics) == {("milvus", "ok"): 2, ("milvus", "error"): 1}
