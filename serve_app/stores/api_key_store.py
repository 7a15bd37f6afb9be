"""How are keys and tenants' limits kept?"""

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
"""A key that was revoked or changed meanwhile is left as it is."""
_TRIES = 5


class ApiKeyStore:
    """Keys and tenants' limits in Redis; every method raises `StoreUnavailable` while Redis is away.

    Each change makes another version, by which every process sees that there is one: it is in force in this process at
    once, and in all others within two seconds.
    """

    def __init__(self, redis: Redis, access: ApiKeyCache) -> None:
        self._redis: Any = redis
        self._access = access

    async def create(self, order: ApiKeyRequest) -> NewApiKey:
        """Make a key."""
        key_id = create_key_id()
        made = NewApiKey(**dict(order), id=key_id, created_at=time.time(), key=create_key(key_id))
        await self._put(API_KEYS, key_id, StoredKey.of(made).model_dump_json())
        return made

    async def list_keys(self) -> tuple[ApiKey, ...]:
        """The keys, oldest first."""
        with translate_redis_errors():
            found = parse_rows(StoredKey, await self._redis.hgetall(API_KEYS))
        return tuple(each.public for each in sorted(found.values(), key=lambda each: (each.created_at, each.id)))

    async def revoke(self, key_id: str) -> None:
        """End a key.

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
        """Change those of a key's limits that are named.

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
            given = (key_id, before, after.model_dump_json(), uuid4().hex)
            with translate_redis_errors():
                replaced = await self._redis.eval(_REPLACE, 2, API_KEYS, ACCESS_VERSION, *given)
            if replaced:
                await self._access.refresh()
                return after.public
        raise SessionBusy("The key is being changed by others; try again")

    async def list_tenants(self) -> tuple[TenantEntry, ...]:
        """The tenants whose limits somebody has set, by name."""
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
