"""Every process knows the keys and limits soon, without a round trip."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest
from listening import free_port
from pydantic import SecretStr
from tcp_proxy import proxied

from serve_app.config import RedisSettings
from serve_app.errors import NotFound, StoreUnavailable
from serve_app.observability.metric_catalogue import ACCESS_AGE_S
from serve_app.observability.metrics import InMemoryMetrics
from serve_app.stores.api_keys import OPERATOR, ApiKeyCache, ApiKeyStore
from serve_app.stores.redis import create_redis_client
from serve_app.stores.redis_keys import ACCESS_VERSION, API_KEYS
from serve_app.values import SCOPES, ApiKey, ApiKeyRequest, Caller, RateLimits, TenantEntry, TenantLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis.asyncio import Redis

ORDER = ApiKeyRequest(tenant="acme", scopes=frozenset({"chat"}), name="the shop", limits=RateLimits(turns_per_minute=5))
OPERATORS = SecretStr("operator-key-of-thirty-two-characters")
LIMITS = TenantLimits(limits=RateLimits(tokens_per_minute=1000), weight=2)
CHANGE_S = 2.0


@contextlib.asynccontextmanager
async def refreshing(access: ApiKeyCache) -> AsyncIterator[ApiKeyCache]:
    task = asyncio.create_task(access.refresh_forever())
    try:
        yield access
    finally:
        assert not task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool], seconds: float = CHANGE_S) -> float:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds
        await asyncio.sleep(0.01)
    return time.monotonic() - begun


@pytest.fixture
def book(redis: Redis) -> ApiKeyStore:
    return ApiKeyStore(redis, ApiKeyCache(redis))


async def test_a_key_opens_what_it_was_made_for_and_its_secret_is_kept_nowhere(redis: Redis) -> None:
    access = ApiKeyCache(redis)
    made = await ApiKeyStore(redis, access).create(ORDER)
    assert access.find_caller(made.key) == Caller(tenant="acme", key_id=made.id, scopes={"chat"}, limits=ORDER.limits)
    assert made.key.startswith(f"sa_{made.id}_")
    assert made.key.split("_", 2)[2] not in str(await redis.hgetall(API_KEYS))


async def test_two_keys_of_the_same_order_share_neither_id_nor_secret_nor_hash(book: ApiKeyStore, redis: Redis) -> None:
    one, other = await book.create(ORDER), await book.create(ORDER)
    assert one.id != other.id
    assert one.key.split("_", 2)[2] != other.key.split("_", 2)[2]
    assert len(set((await redis.hgetall(API_KEYS)).values())) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        lambda key: "",
        lambda key: key[:-1],
        lambda key: f"{key}x",
        lambda key: key.replace("sa_", "sk_"),
        lambda key: f"sa_0123456789abcdef_{key.split('_', 2)[2]}",
        lambda key: f"sa_{key.split('_')[1]}_",
        lambda key: f"sa_{key.split('_')[1]}",
        lambda key: "密钥",
        lambda key: "\udcff",
        lambda key: "sa_",
        lambda key: "0" * 64,
    ],
)
async def test_what_is_not_the_whole_key_is_nobodys(redis: Redis, wrong: Callable[[str], str]) -> None:
    access = ApiKeyCache(redis, OPERATORS)
    made = await ApiKeyStore(redis, access).create(ORDER)
    assert access.find_caller(made.key)
    assert access.find_caller(wrong(made.key)) is None


async def test_the_operators_key_opens_everything_even_before_redis_was_heard_of(redis: Redis) -> None:
    access = ApiKeyCache(redis, OPERATORS)
    assert access.find_caller(OPERATORS.get_secret_value()) == OPERATOR == Caller(key_id="operator", scopes=SCOPES)
    for each in ("sa_0123456789abcdef_x", "anything"):
        with pytest.raises(StoreUnavailable) as raised:
            access.find_caller(each)
        assert raised.value.retry_after_s
    assert ApiKeyCache(redis).tenant_limits("acme") == TenantLimits()
    await access.refresh()
    assert access.find_caller("anything") is None


async def test_without_an_operators_key_the_empty_one_is_nobodys(redis: Redis) -> None:
    access = ApiKeyCache(redis)
    await access.refresh()
    assert access.find_caller("") is None


async def test_what_one_process_changes_all_others_know_within_two_seconds(redis: Redis, book: ApiKeyStore) -> None:
    async with refreshing(ApiKeyCache(redis)) as there, refreshing(ApiKeyCache(redis)) as elsewhere:
        made = await book.create(ORDER)
        for access in (there, elsewhere):
            await until(lambda access=access: access._snapshot is not None and access.find_caller(made.key) is not None)
        assert (await book.update_limits(made.id, {"turns_per_minute": 7})).limits.turns_per_minute == 7
        await book.put_tenant("acme", LIMITS)
        for access in (there, elsewhere):
            await until(lambda access=access: access.find_caller(made.key).limits.turns_per_minute == 7)
            await until(lambda access=access: access.tenant_limits("acme") == LIMITS)
        await book.revoke(made.id)
        for access in (there, elsewhere):
            await until(lambda access=access: access.find_caller(made.key) is None)


async def test_a_look_that_finds_nothing_new_reads_one_small_string(redis: Redis, book: ApiKeyStore) -> None:
    access = ApiKeyCache(redis)
    await book.create(ORDER)
    await access.refresh()
    before = (await redis.info("commandstats"))["cmdstat_hgetall"]["calls"]
    for _ in range(5):
        await access.refresh()
    assert (await redis.info("commandstats"))["cmdstat_hgetall"]["calls"] == before
    await redis.delete(ACCESS_VERSION, API_KEYS)  # as a server that lost its data
    await access.refresh()
    assert access._snapshot.keys == {}


async def test_keys_are_listed_without_what_proves_them_and_revoked_once(book: ApiKeyStore) -> None:
    made = [await book.create(ORDER.model_copy(update={"name": name})) for name in ("a", "b")]
    assert await book.list_keys() == tuple(ApiKey(**each.model_dump(exclude={"key"})) for each in made)
    await book.revoke(made[0].id)
    assert [key.name for key in await book.list_keys()] == ["b"]
    for refused in (book.revoke(made[0].id), book.update_limits(made[0].id, {"turns_burst": 1})):
        with pytest.raises(NotFound):
            await refused


async def test_of_limits_only_those_named_change_and_none_takes_one_away(book: ApiKeyStore) -> None:
    made = await book.create(ORDER)
    await book.update_limits(made.id, {"tokens_per_minute": 100, "tokens_burst": 5})
    limited = await book.update_limits(made.id, {"turns_per_minute": None, "tokens_burst": 6})
    assert limited.limits == RateLimits(tokens_per_minute=100, tokens_burst=6)
    assert (await book.list_keys())[0].limits == limited.limits


async def test_changes_at_once_are_all_kept_and_a_revoked_key_does_not_come_back(book: ApiKeyStore) -> None:
    made = await book.create(ORDER)
    names = ("turns_burst", "tokens_per_minute", "tokens_burst")
    await asyncio.gather(*(book.update_limits(made.id, {name: 3}) for name in names))
    assert {getattr((await book.list_keys())[0].limits, name) for name in names} == {3}
    results = await asyncio.gather(
        *(book.update_limits(made.id, {"turns_burst": n}) for n in range(1, 4)),
        book.revoke(made.id),
        return_exceptions=True,
    )
    assert results[-1] is None
    assert await book.list_keys() == ()


async def test_tenants_are_listed_with_the_limits_that_were_set_last(book: ApiKeyStore) -> None:
    await book.put_tenant("b", LIMITS)
    await book.put_tenant("a", TenantLimits())
    await book.put_tenant("b", TenantLimits(weight=3))
    assert await book.list_tenants() == (TenantEntry(tenant="a"), TenantEntry(tenant="b", weight=3))


async def test_a_row_that_cannot_be_read_costs_none_of_the_others(
    redis: Redis, book: ApiKeyStore, captured_logs
) -> None:
    made = await book.create(ORDER)
    text = await redis.hget(API_KEYS, made.id)
    await redis.hset(API_KEYS, mapping={"0" * 16: "{}", made.id: text.replace("{", '{"of_tomorrow": 1, ', 1)})
    access = ApiKeyCache(redis)
    await access.refresh()
    assert access.find_caller(made.key)
    assert [line["row"] for line in captured_logs.of("access_row_unreadable")][-1] == "0" * 16


async def test_while_redis_is_away_the_last_known_keys_stay_in_force_and_that_is_told_once(
    redis_url, redis, captured_logs
) -> None:
    metrics = InMemoryMetrics()
    async with proxied(redis_url) as proxy:
        client = create_redis_client(RedisSettings(timeout_s=0.3), f"redis://127.0.0.1:{proxy.port}/0")
        book = ApiKeyStore(redis, ApiKeyCache(redis))
        made = await book.create(ORDER)
        async with refreshing(ApiKeyCache(client, metrics=metrics)) as access:
            await until(lambda: access._snapshot is not None)
            proxy.silent = True
            await until(lambda: bool(captured_logs.of("redis_unavailable")), 4)
            await asyncio.sleep(1)
            assert access.find_caller(made.key)
            assert metrics.gauges[ACCESS_AGE_S][()] > 1
            await book.revoke(made.id)
            proxy.silent = False
            await until(lambda: access.find_caller(made.key) is None, 5)
        assert (len(captured_logs.of("redis_unavailable")), len(captured_logs.of("redis_available_again"))) == (1, 1)
        await client.aclose()


async def test_who_changes_keys_while_redis_is_away_is_told() -> None:
    redis = create_redis_client(RedisSettings(), f"redis://127.0.0.1:{free_port()}/0")
    book = ApiKeyStore(redis, ApiKeyCache(redis))
    id_ = "0" * 16
    for call in (
        book.create(ORDER),
        book.list_keys(),
        book.revoke(id_),
        book.update_limits(id_, {}),
        book.list_tenants(),
        book.put_tenant("a", LIMITS),
    ):
        with pytest.raises(StoreUnavailable):
            await call
    await redis.aclose()
