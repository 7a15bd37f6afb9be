"""In-process cache of the API keys and tenants' limits, refreshed twice a second.

One small string in Redis, the version, changes with every change of keys and limits. The cache compares it twice a
second and reads everything again when it differs. So a request costs no round trip, however many keys there are.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError
from redis.exceptions import RedisError

from serve_app.errors import StoreCorrupt, StoreUnavailable
from serve_app.observability.metric_catalogue import ACCESS_AGE_S
from serve_app.observability.metrics import NULL_METRICS
from serve_app.stores.availability import RedisAvailability
from serve_app.stores.key_hash import StoredKey, equal_keys, parse_key_id, verify_key
from serve_app.stores.redis import is_key_error, translate_redis_errors
from serve_app.stores.redis_keys import ACCESS_VERSION, API_KEYS, TENANTS
from serve_app.values import Caller, TenantLimits, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import SecretStr
    from redis.asyncio import Redis

    from serve_app.ports import Metrics

logger = logging.getLogger(__name__)

REFRESH_EVERY_S = 0.5
REFRESH_TIMEOUT_S = 1.0
"""For one refresh: with the pause before it, a change is known everywhere within two seconds."""
OPERATOR = Caller(key_id="operator")
"""The caller with the key that the configuration names."""
NO_LIMITS = TenantLimits()

V = TypeVar("V", bound=Value)


@dataclass(frozen=True, slots=True)
class AccessSnapshot:
    """The keys and the tenants' limits at one moment."""

    version: str | None = None
    keys: Mapping[str, StoredKey] = field(default_factory=dict)
    tenants: Mapping[str, TenantLimits] = field(default_factory=dict)


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
        self._snapshot: AccessSnapshot | None = None
        self._read_at = time.monotonic()

    def find_caller(self, key: str) -> Caller | None:
        """Return the caller with this key; None if there is none.

        Both take the same time.

        Raises:
            StoreUnavailable: this process has not read the keys yet.
        """
        stored = self._snapshot.keys.get(parse_key_id(key)) if self._snapshot else None
        is_valid, is_operator = verify_key(key, stored), bool(self._operator) and equal_keys(key, self._operator)
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
                await self._availability.call_once(self._refresh_in_time)
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
                before = self._snapshot or AccessSnapshot()
                self._snapshot = AccessSnapshot(
                    _parse_reply(version, before.version, str),
                    _parse_reply(keys, before.keys, partial(parse_rows, StoredKey)),
                    _parse_reply(tenants, before.tenants, partial(parse_rows, TenantLimits)),
                )
        self._read_at = begun

    async def _refresh_in_time(self) -> None:
        try:
            async with asyncio.timeout(REFRESH_TIMEOUT_S):
                await self.refresh()
        except TimeoutError:
            raise StoreUnavailable("Redis did not answer") from None


def _parse_reply(reply: Any, before: Any, parse: Callable[[Any], Any]) -> Any:
    """Return what one of the keys holds; where it is corrupt, what it held before."""
    if is_key_error(reply):
        logger.error("access_key_unreadable", exc_info=reply)
        return before
    if isinstance(reply, RedisError):
        raise reply
    return None if reply is None else parse(reply)


def parse_rows(kind: type[V], rows: Mapping[str, str]) -> dict[str, V]:
    """Return the valid rows, without fields of a newer version; invalid rows are logged."""
    found: dict[str, V] = {}
    for name, text in rows.items():
        try:
            found[name] = kind.model_validate_json(text, extra="ignore")
        except ValidationError as error:
            logger.warning("access_row_unreadable", extra={"row": name, "problems": error.error_count()})
    return found
