"""API keys and tenants' limits: hash, store, and the cache of each process.

    sa_ID_SECRET    ID: 16 hexadecimal digits, by which the key is found; SECRET: 256 random bits in base64url

Only a salt and SHA-256 over salt and secret are stored. A slow hash is for passwords, which people choose and others
guess; nobody guesses 256 random bits, and checking them must cost a request only microseconds.

One small string in Redis, the version, changes with every change of keys and limits. The cache compares it twice a
second and reads everything again when it differs. So a request costs no round trip, however many keys there are.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from pydantic import ValidationError
from redis.exceptions import RedisError

from serve_app.errors import NotFound, SessionBusy, StoreCorrupt, StoreUnavailable
from serve_app.observability.metric_catalogue import ACCESS_AGE_S
from serve_app.observability.metrics import NULL_METRICS
from serve_app.stores.availability import RedisAvailability
from serve_app.stores.redis import is_key_error, translate_redis_errors
from serve_app.stores.redis_keys import ACCESS_VERSION, API_KEYS, TENANTS
from serve_app.values import ApiKey, ApiKeyRequest, Caller, NewApiKey, RateLimits, TenantEntry, TenantLimits, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import SecretStr
    from redis.asyncio import Redis

    from serve_app.ports import Metrics

V = TypeVar("V", bound=Value)
logger = logging.getLogger(__name__)

PREFIX = "sa"
_ID_BYTES, _SALT_BYTES, _SECRET_BYTES = 8, 16, 32
_NO_DIGEST = "0" * 64

REFRESH_EVERY_S = 0.5
REFRESH_TIMEOUT_S = 1.0
"""For one refresh: with the pause before it, a change is known everywhere within two seconds."""
OPERATOR = Caller(key_id="operator")
"""The caller with the key that the configuration names."""
NO_LIMITS = TenantLimits()

_REPLACE = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[4])
return 1
"""
"""Leaves a key alone that was revoked or changed meanwhile."""
_TRIES = 5


class ApiKeyCache:
    """The keys and limits that Redis has, and the operator's key, which needs no Redis.

    While Redis is away, the last known keys and limits stay in force.
    """

    def __init__(
        self,
        redis: Redis,
        operator: SecretStr | None = None,
        metrics: Metrics = NULL_METRICS,
        availability: RedisAvailability | None = None,
    ) -> None:
        self._redis: Any = redis
        self._operator = operator.get_secret_value() if operator else ""
        self._metrics = metrics
        self._availability = availability or RedisAvailability()
        self._snapshot: _AccessSnapshot | None = None
        self._read_at = time.monotonic()

    def find_caller(self, key: str) -> Caller | None:
        """Return the caller with this key; None if there is none.

        Both take the same time.

        Raises:
            StoreUnavailable: this process has not read the keys yet.
        """
        stored = self._snapshot.keys.get(_parse_key_id(key)) if self._snapshot else None
        is_valid, is_operator = _verify_key(key, stored), bool(self._operator) and _equal_keys(key, self._operator)
        if is_operator:
            return OPERATOR
        if self._snapshot is None:
            raise StoreUnavailable("The keys are not known here yet", retry_after_s=1)
        return stored.caller if stored and is_valid else None

    def tenant_limits(self, tenant: str) -> TenantLimits:
        """Return the tenant's limits; the defaults where none are set, or none were read yet."""
        return self._snapshot.tenants.get(tenant, NO_LIMITS) if self._snapshot else NO_LIMITS

    async def refresh_forever(self) -> None:
        """Refresh the cache twice a second; what fails is tried again."""
        was_corrupt = False
        while True:
            is_corrupt = False
            try:
                await self._availability.call_once(self.refresh, REFRESH_TIMEOUT_S)
            except StoreCorrupt as error:
                is_corrupt = True
                if not was_corrupt:
                    logger.warning("access_unreadable", extra={"error": error.message})
            except StoreUnavailable:
                logger.debug("access_not_refreshed", exc_info=True)  # `redis_unavailable` is logged once
            except Exception:
                logger.exception("access_not_refreshed")
            was_corrupt = is_corrupt
            self._metrics.set(ACCESS_AGE_S, time.monotonic() - self._read_at)
            await asyncio.sleep(REFRESH_EVERY_S)

    async def refresh(self) -> None:
        """Read the keys and limits again if they have changed.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        begun = time.monotonic()
        with translate_redis_errors():
            if self._snapshot is None or await self._redis.get(ACCESS_VERSION) != self._snapshot.version:
                pipeline = self._redis.pipeline(transaction=True)
                pipeline.get(ACCESS_VERSION).hgetall(API_KEYS).hgetall(TENANTS)
                version, keys, tenants = await pipeline.execute(raise_on_error=False)
                before = self._snapshot or _AccessSnapshot()
                self._snapshot = _AccessSnapshot(
                    _parse_reply(version, before.version, str),
                    _parse_reply(keys, before.keys, partial(_parse_rows, StoredKey)),
                    _parse_reply(tenants, before.tenants, partial(_parse_rows, TenantLimits)),
                )
        self._read_at = begun


@dataclass(frozen=True, slots=True)
class _AccessSnapshot:
    """The keys and the tenants' limits at one moment."""

    version: str | None = None
    keys: Mapping[str, StoredKey] = field(default_factory=dict)
    tenants: Mapping[str, TenantLimits] = field(default_factory=dict)


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
        key_id = secrets.token_hex(_ID_BYTES)
        key = f"{PREFIX}_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        made = NewApiKey(**dict(order), id=key_id, created_at=time.time(), key=key)
        await self._put(API_KEYS, key_id, StoredKey.from_new_key(made).model_dump_json())
        return made

    async def list_keys(self) -> tuple[ApiKey, ...]:
        """Return the keys, oldest first."""
        with translate_redis_errors():
            found = _parse_rows(StoredKey, await self._redis.hgetall(API_KEYS))
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
            stored = _parse_rows(StoredKey, {key_id: before}).get(key_id) if before is not None else None
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
            found = _parse_rows(TenantLimits, await self._redis.hgetall(TENANTS))
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


class StoredKey(ApiKey):
    """An API key as Redis has it, with the hash of its secret."""

    salt: str
    digest: str

    @property
    def public(self) -> ApiKey:
        """The key without salt and hash."""
        return ApiKey(**{name: getattr(self, name) for name in ApiKey.model_fields})

    @cached_property
    def caller(self) -> Caller:
        """The caller that this key identifies."""
        return Caller(tenant=self.tenant, key_id=self.id, scopes=self.scopes, limits=self.limits)

    @classmethod
    def from_new_key(cls, key: NewApiKey) -> StoredKey:
        """Return what is stored of a new key."""
        salt = secrets.token_hex(_SALT_BYTES)
        fields = {name: getattr(key, name) for name in ApiKey.model_fields}
        return cls(**fields, salt=salt, digest=_digest(salt, _parse_secret(key.key)))


def _parse_key_id(key: str) -> str:
    """Return the id in a key that a client sent; empty if there is none."""
    prefix, _, rest = key.partition("_")
    return rest.partition("_")[0] if prefix == PREFIX else ""


def _parse_secret(key: str) -> str:
    """Return the secret in a key."""
    return key.split("_", 2)[-1]


def _verify_key(key: str, stored: StoredKey | None) -> bool:
    """Return whether `key` is the stored key; None takes as long as a wrong one."""
    found = _digest(stored.salt if stored else _NO_DIGEST[:32], _parse_secret(key))
    return hmac.compare_digest(found, stored.digest if stored else _NO_DIGEST) and stored is not None


def _equal_keys(key: str, other: str) -> bool:
    """Return whether two keys are equal, in a time that does not depend on them."""
    return hmac.compare_digest(_digest("", key), _digest("", other))


def _digest(salt: str, secret: str) -> str:
    return hashlib.sha256(f"{salt}{secret}".encode("utf-8", "surrogatepass")).hexdigest()


def _parse_reply(reply: Any, before: Any, parse: Callable[[Any], Any]) -> Any:
    """Return what one of the keys holds; where it is corrupt, what it held before."""
    if is_key_error(reply):
        logger.error("access_key_unreadable", exc_info=reply)
        return before
    if isinstance(reply, RedisError):
        raise reply
    return None if reply is None else parse(reply)


def _parse_rows(kind: type[V], rows: Mapping[str, str]) -> dict[str, V]:
    """Return the valid rows, without fields of a newer version; invalid rows are logged."""
    found: dict[str, V] = {}
    for name, text in rows.items():
        try:
            found[name] = kind.model_validate_json(text, extra="ignore")
        except ValidationError as error:
            logger.warning("access_row_unreadable", extra={"row": name, "problems": error.error_count()})
    return found


def _no_key(key_id: str) -> NotFound:
    return NotFound(f"There is no key {key_id}")
