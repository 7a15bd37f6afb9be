"""Faults reach every process that serves requests, and expire by themselves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from listening import free_port
from tcp_proxy import proxied

from serve_app.config import RedisSettings
from serve_app.errors import StoreUnavailable
from serve_app.stores.fault_store import FRESH_S, READ_TIMEOUT_S, TTL_S, FaultStore
from serve_app.stores.redis import create_redis_client
from serve_app.stores.redis_keys import FAULTS
from serve_app.values import Fault

if TYPE_CHECKING:
    from redis.asyncio import Redis


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def fault(target: str = "tool:a", for_s: float = 60, rate: float = 1) -> Fault:
    return Fault(target=target, mode="error", rate=rate, delay_s=0, until=time.time() + for_s)


async def test_a_fault_replaces_the_one_of_the_same_target(redis: Redis) -> None:
    board, first, second = FaultStore(redis), fault(rate=0.1), fault(rate=0.2)
    await board.put(first)
    await board.put(other := fault("retriever"))
    await board.put(second)
    assert await board.list_faults() == await board.active_faults() == (other, second)


async def test_faults_are_cleared_one_by_one_or_all(redis: Redis) -> None:
    board = FaultStore(redis)
    stored = [fault(target) for target in ("embedding", "model", "retriever")]
    for each in stored:
        await board.put(each)
    await board.clear("model")
    assert await board.active_faults() == (stored[0], stored[2])
    await board.clear(None)
    assert await board.active_faults() == await board.list_faults() == ()


async def test_a_fault_ends_by_itself_and_its_key_with_it(redis: Redis) -> None:
    board = FaultStore(redis)
    await board.put(fault("model", for_s=-1))
    await board.put(lasting := fault())
    assert await board.active_faults() == await board.list_faults() == (lasting,)
    assert 0 < await redis.ttl(FAULTS) <= TTL_S


async def test_another_process_knows_within_a_second_and_asks_once_in_one(redis: Redis) -> None:
    clock = Clock()
    other = FaultStore(redis, clock=clock)
    assert await other.active_faults() == ()
    await FaultStore(redis).put(set_elsewhere := fault())
    clock.now = 0.9 * FRESH_S
    assert await other.active_faults() == ()
    clock.now = FRESH_S
    assert await other.active_faults() == (set_elsewhere,)
    await redis.delete(FAULTS)
    assert await other.active_faults() == (set_elsewhere,)


async def test_no_fault_is_in_force_while_redis_is_away_and_who_asks_for_them_is_told() -> None:
    redis = create_redis_client(RedisSettings(), f"redis://127.0.0.1:{free_port()}/0")
    board = FaultStore(redis)
    assert await board.active_faults() == ()
    for call in (board.list_faults(), board.put(fault()), board.clear(None)):
        with pytest.raises(StoreUnavailable):
            await call
    await redis.aclose()


async def test_a_redis_that_does_not_answer_costs_one_request_a_moment(redis_url: str) -> None:
    clock = Clock()
    async with proxied(redis_url) as proxy:
        redis = create_redis_client(RedisSettings(), f"redis://127.0.0.1:{proxy.port}/0")
        board = FaultStore(redis, clock=clock)
        await board.put(fault())
        assert len(await board.active_faults()) == 1
        proxy.silent = True
        clock.now = FRESH_S
        begun = time.monotonic()
        assert await board.active_faults() == ()
        assert READ_TIMEOUT_S <= time.monotonic() - begun < 1
        begun = time.monotonic()
        assert await board.active_faults() == ()
        assert time.monotonic() - begun < READ_TIMEOUT_S / 2
        await redis.aclose()
