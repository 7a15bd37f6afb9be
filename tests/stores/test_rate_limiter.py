"""The limits let through exactly what they allow, by Redis's clock."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from tcp_proxy import proxied

from serve_app.config import LimitSettings, RedisSettings
from serve_app.errors import RateLimited
from serve_app.observability.metric_catalogue import LIMITER_FAILURES
from serve_app.observability.metrics import InMemoryMetrics
from serve_app.stores.rate_limiter import RateLimiter, TokenMeter
from serve_app.stores.redis import create_redis_client
from serve_app.values import Caller, Context, Metering, RateLimits, TenantLimits

if TYPE_CHECKING:
    from redis.asyncio import Redis


class FixedLimits:
    """Tells the limits that it is given for a tenant."""

    def __init__(self, **limits: RateLimits) -> None:
        self.limits = limits

    def tenant_limits(self, tenant: str) -> TenantLimits:
        return TenantLimits(limits=self.limits.get(tenant, RateLimits()))


FIFTY = RateLimits(turns_per_minute=50, turns_burst=50)


def _limiter(redis: Redis, tenants: FixedLimits | None = None, **settings: RateLimits) -> RateLimiter:
    return RateLimiter(redis, LimitSettings(**settings), tenants or FixedLimits())


def _caller(tenant: str = "t", key_id: str = "", **limits: float) -> Caller:
    return Caller(tenant=tenant, key_id=key_id, limits=RateLimits(**limits))


async def _let_through(limiter: RateLimiter, caller: Caller, times: int) -> int:
    outcomes = await asyncio.gather(*(limiter.take_turn(caller) for _ in range(times)), return_exceptions=True)
    refused = [each for each in outcomes if isinstance(each, BaseException)]
    assert all(isinstance(each, RateLimited) for each in refused), refused
    return times - len(refused)


async def _commands(redis: Redis) -> int:
    return (await redis.info("stats"))["total_commands_processed"]


async def test_exactly_the_burst_passes_of_two_hundred_at_once(redis):
    first, second = (_limiter(redis, tenant=FIFTY) for _ in range(2))
    passed = await asyncio.gather(*(_let_through(each, _caller(), 100) for each in (first, second)))
    assert sum(passed) == 50


async def test_it_comes_back_at_its_rate_and_says_when(redis):
    limiter = _limiter(redis, tenant=RateLimits(turns_per_minute=300, turns_burst=2))
    assert await _let_through(limiter, _caller(), 3) == 2
    with pytest.raises(RateLimited) as refused:
        await limiter.take_turn(_caller())
    assert 0.1 < refused.value.retry_after_s <= 0.2
    await asyncio.sleep(refused.value.retry_after_s + 0.002)
    assert await _let_through(limiter, _caller(), 3) == 1


async def test_what_is_refused_by_one_allowance_takes_from_none(redis):
    limiter = _limiter(redis, tenant=RateLimits(turns_per_minute=10))
    narrow = _caller(key_id="k1", turns_per_minute=1, turns_burst=3)
    assert await _let_through(limiter, narrow, 20) == 3
    assert await _let_through(limiter, _caller(key_id="k2"), 20) == 7


async def test_each_key_has_its_own_and_all_of_a_tenant_share_the_tenants(redis):
    limiter = _limiter(redis, tenant=RateLimits(turns_per_minute=5), key=RateLimits(turns_per_minute=3))
    assert [await _let_through(limiter, _caller(key_id=key), 9) for key in ("k1", "k2", "k3")] == [3, 2, 0]
    assert await _let_through(limiter, _caller(tenant="other", key_id="k1"), 9) == 3


async def test_what_is_set_for_one_tenant_or_key_takes_the_place_of_the_default_at_once(redis):
    tenants = FixedLimits()
    limiter = _limiter(redis, tenants, tenant=RateLimits(turns_per_minute=1), key=RateLimits(turns_per_minute=100))
    assert await _let_through(limiter, _caller(), 20) == 1
    tenants.limits["t"] = RateLimits(turns_per_minute=10)
    assert await _let_through(limiter, _caller(), 20) == 10
    assert await _let_through(limiter, _caller(tenant="u"), 20) == 1
    assert await _let_through(limiter, _caller(tenant="v", key_id="k", turns_per_minute=5), 20) == 1


async def test_without_limits_redis_is_not_asked(redis):
    before = await _commands(redis)
    assert await _limiter(redis, key=FIFTY).take_turn(_caller()) is None
    assert await _commands(redis) == before + 1


async def test_all_four_limits_take_one_round_trip(redis):
    everything = RateLimits(turns_per_minute=5, tokens_per_minute=5)
    limiter = _limiter(redis, tenant=everything, key=everything)
    before = await redis.info("commandstats")
    metering = await limiter.take_turn(_caller(key_id="k1"))
    after = await redis.info("commandstats")
    assert metering == Metering(tenant_per_minute=5, key_per_minute=5)
    assert after["cmdstat_eval"]["calls"] - before.get("cmdstat_eval", {"calls": 0})["calls"] == 1


async def test_tokens_are_charged_when_they_are_known_and_the_next_turn_waits_for_them(redis):
    limiter, meter = _limiter(redis, tenant=RateLimits(tokens_per_minute=6000, tokens_burst=1000)), TokenMeter(redis)
    metering = await limiter.take_turn(_caller())
    await meter.charge([(_context(metering), 400), (_context(metering), 500)])
    assert await limiter.take_turn(_caller()) == metering
    await meter.charge([(_context(metering), 1100)])
    with pytest.raises(RateLimited) as refused:
        await limiter.take_turn(_caller())
    assert 9.5 < refused.value.retry_after_s < 10.1, "a thousand tokens too many, at a hundred a second"


async def test_tokens_of_a_key_are_charged_to_the_key_and_to_its_tenant(redis):
    limiter = _limiter(redis, tenant=RateLimits(tokens_per_minute=100), key=RateLimits(tokens_per_minute=1000))
    metering = await limiter.take_turn(_caller(key_id="k1"))
    await TokenMeter(redis).charge([(_context(metering, key_id="k1"), 150)])
    with pytest.raises(RateLimited, match="tenant has used up its tokens"):
        await limiter.take_turn(_caller(key_id="k2"))
    alone = _limiter(redis, key=RateLimits(tokens_per_minute=1000))
    await TokenMeter(redis).charge([(_context(metering, key_id="k1"), 1000)])
    with pytest.raises(RateLimited, match="key has used up its tokens"):
        await alone.take_turn(_caller(key_id="k1"))
    await alone.take_turn(_caller(key_id="k2"))


async def test_a_clock_that_is_hours_wrong_changes_nothing(redis, monkeypatch):
    limiter = _limiter(redis, tenant=FIFTY)
    passed = 0
    for skew_s in (0, 7200, -7200, 86_400):
        monkeypatch.setattr(time, "time", lambda skew_s=skew_s: 1_800_000_000 + skew_s)
        passed += await _let_through(limiter, _caller(), 50)
    assert passed == 50


async def test_nothing_is_kept_longer_than_it_matters(redis):
    limiter = _limiter(redis, tenant=RateLimits(turns_per_minute=600, tokens_per_minute=600))
    metering = await limiter.take_turn(_caller())
    await TokenMeter(redis).charge([(_context(metering), 20)])
    lives = {key: await redis.pttl(key) for key in await redis.keys()}
    assert set(lives) == {"serve_app:limit:{t}:turns:600", "serve_app:limit:{t}:tokens:600"}
    assert 0 < lives["serve_app:limit:{t}:turns:600"] <= 101
    assert 0 < lives["serve_app:limit:{t}:tokens:600"] <= 2001


async def test_while_redis_is_away_all_pass_at_once_and_it_is_counted_and_told_once(redis_url, captured_logs):
    metrics = InMemoryMetrics()
    async with proxied(redis_url) as proxy:
        redis = create_redis_client(RedisSettings(timeout_s=0.2), f"redis://127.0.0.1:{proxy.port}/0")
        limiter = RateLimiter(redis, LimitSettings(tenant=FIFTY), FixedLimits(), metrics)
        await limiter.take_turn(_caller())
        proxy.silent = True
        begun = time.monotonic()
        for _ in range(100):
            assert await limiter.take_turn(_caller()) is None
        assert time.monotonic() - begun < 3, "three wait for an answer, and one in each second"
        await TokenMeter(redis, metrics).charge([(_context(Metering(tenant_per_minute=5)), 3)])
        assert metrics.of(LIMITER_FAILURES) == {"ask": 100, "charge": 1}
        await redis.aclose()
    assert [each["event"] for each in captured_logs.lines if each["event"].startswith(("redis", "tokens"))] == [
        "redis_unavailable",
        "tokens_not_charged",
    ]


def _context(metering: Metering | None, key_id: str = "") -> Context:
    ids = {"request_id": "q", "run_id": "r", "session_id": "s"}
    return Context(**ids, tenant="t", key_id=key_id, deadline=time.time() + 60, metering=metering)
