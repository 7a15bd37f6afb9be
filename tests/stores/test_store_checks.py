"""The health checks of Redis and of this machine's clock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tcp_proxy import proxied

from serve_app.config import RedisSettings
from serve_app.stores.redis import create_redis_client
from serve_app.stores.store_checks import MAX_CLOCK_SKEW_S, PING_TIMEOUT_S, RedisHealth, check_clock

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def test_a_redis_that_answers_is_well_and_so_is_the_clock(redis: Redis) -> None:
    checks = await RedisHealth(redis).checks()
    assert [(check.name, check.ok) for check in checks] == [("redis", True), ("clock", True)]


async def test_a_redis_that_was_never_heard_of_is_required_and_one_that_was_is_not(redis_url: str) -> None:
    async with proxied(redis_url.replace("redis://", "http://").removesuffix("/0")) as proxy:
        client = create_redis_client(RedisSettings(), proxy.url.replace("http", "redis"))
        pulse = RedisHealth(client)
        proxy.silent = True
        begun = time.monotonic()
        (check,) = await pulse.checks()
        assert (check.name, check.ok, check.required) == ("redis", False, True)
        assert time.monotonic() - begun < PING_TIMEOUT_S + 0.5
        proxy.silent = False
        assert all(check.ok for check in await pulse.checks())
        proxy.silent = True
        (check,) = await pulse.checks()
        assert (check.name, check.ok, check.required) == ("redis", False, False)
        proxy.silent = False
        await client.aclose()


@pytest.mark.parametrize(("ahead_s", "words"), [(12, "12 s ahead"), (-90, "90 s behind")])
async def test_a_clock_that_is_wrong_is_told_and_stops_nothing(redis: Redis, ahead_s: float, words: str) -> None:
    redis_check, check = await RedisHealth(redis, lambda: time.time() + ahead_s).checks()
    assert redis_check.ok
    assert (check.name, check.ok, check.required) == ("clock", False, False)
    assert words in str(check.reason)


@given(st.floats(0, 4e9), st.floats(-1e6, 1e6), st.floats(0, 5), st.floats(0, 5))
def test_a_slow_answer_is_never_taken_for_a_wrong_clock(
    server_time: float, ahead_s: float, there_s: float, back_s: float
) -> None:
    sent_at, received_at = server_time + ahead_s - there_s, server_time + ahead_s + back_s
    if abs(ahead_s) <= MAX_CLOCK_SKEW_S - 1e-3:
        assert check_clock(sent_at, server_time, received_at).ok
    if abs(ahead_s) > MAX_CLOCK_SKEW_S + there_s + back_s + 1e-3:
        assert not check_clock(sent_at, server_time, received_at).ok
