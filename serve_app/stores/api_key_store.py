"""API keys and tenants' limits in Redis, as operators manage them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from serve_app.errors import NotFound, SessionBusy
from serve_app.stores.api_key_cache import parse_rows
from serve_app.stores.key_hash import StoredKey, create_key, create_key_id
from serve_app.stores.redis import translate_redis_errors
from serve_app.stores.redis_keys import ACCESS_VERSION, API_KEYS, TENANTS
from serve_app.values import ApiKey, ApiKeyRequest, NewApiKey, RateLimits, TenantEntry, TenantLimits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis

    from serve_app.stores.api_key_cache import ApiKeyCache

_REPLACE = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[4])
return 1
"""
"""Leaves a key alone that was revoked or changed meanwhile."""
_TRIES = 5


class ApiKeyStore:
    """Keys and tenants' limits in Redis; every method raises `StoreUnavailable` while Redis is away.

    Each change sets a new version, by which the caches of all processes notice it: this process at once, the others
    within two seconds.
    """

    def __init__(self, redis: Redis, access: ApiKeyCache) -> None:
        self._redis: Any = redis
        self._access = access

    async def create(self, order: ApiKeyRequest) -> NewApiKey:
        """Create a key; only the value returned here has its secret."""
        key_id = create_key_id()
        made = NewApiKey(**dict(order), id=key_id, created_at=time.time(), key=create_key(key_id))
        await self._put(API_KEYS, key_id, StoredKey.from_new_key(made).model_dump_json())
        return made

    async def list_keys(self) -> tuple[ApiKey, ...]:
        """Return the keys, oldest first."""
        with translate_redis_errors():
            found = parse_rows(StoredKey, await self._redis.hgetall(API_KEYS))
        return tuple(each.public for each in sorted(found.values(), key=lambda each: (each.created_at, each.id)))

    async def revoke(self, key_id: str) -> None:
        """Revoke a key.

        Raises:
            NotFound: there is no such key.
        """
        with translate_redis_errors():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hdel(API_KEYS, key_id).set(ACCESS_VERSION, uuid4().hex)
            removed, _ = await pipeline.execute()
        await self._access.refresh()
        if not removed:
            raise _no_key(key_id)

    async def update_limits(self, key_id: str, changes: Mapping[str, Any]) -> ApiKey:
        """Change some of a key's limits.

        Raises:
            NotFound: there is no such key.
        """
        for _ in range(_TRIES):
            with translate_redis_errors():
                before = await self._redis.hget(API_KEYS, key_id)
            if before is None:
                raise _no_key(key_id)
            stored = parse_rows(StoredKey, {key_id: before}).get(key_id)
            if stored is None:
                raise _no_key(key_id)
            limits = RateLimits(**{**dict(stored.limits), **changes})
            after = stored.model_copy(update={"limits": limits})
            arguments = (key_id, before, after.model_dump_json(), uuid4().hex)
            with translate_redis_errors():
                replaced = await self._redis.eval(_REPLACE, 2, API_KEYS, ACCESS_VERSION, *arguments)
            if replaced:
                await self._access.refresh()
                return after.public
        raise SessionBusy("Others are changing the key; try again")

    async def list_tenants(self) -> tuple[TenantEntry, ...]:
        """Return the tenants with limits of their own, sorted by name."""
        with translate_redis_errors():
            found = parse_rows(TenantLimits, await self._redis.hgetall(TENANTS))
        return tuple(TenantEntry(tenant=name, **dict(each)) for name, each in sorted(found.items()))

    async def put_tenant(self, tenant: str, limits: TenantLimits) -> TenantEntry:
        """Set a tenant's limits, in place of those that it had."""
        await self._put(TENANTS, tenant, limits.model_dump_json())
        return TenantEntry(tenant=tenant, **dict(limits))

    async def _put(self, key: str, name: str, text: str) -> None:
        with translate_redis_errors():
            pipeline = self._redis.pipeline(transaction=True)
            await pipeline.hset(key, name, text).set(ACCESS_VERSION, uuid4().hex).execute()
        await self._access.refresh()


def _no_key(key_id: str) -> NotFound:
    return NotFound(f"There is no key {key_id}")
