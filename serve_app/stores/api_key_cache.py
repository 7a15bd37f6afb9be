"""Who may what, as of the last second?

One small string in Redis changes with every change of keys and limits: it is looked at twice a second, and everything
is read again when it is another one. So a request costs no round trip, and thousands of keys cost none either.
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

from serve_app.errors import StoreUnavailable
from serve_app.observability.metric_catalogue import ACCESS_AGE_S
from serve_app.observability.null import NULL_METRICS
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
"""For one look: with the pause before it, a change is known everywhere within two seconds."""
OPERATOR = Caller(key_id="operator")
"""Whoever shows the key that the configuration names."""
NOTHING_SET = TenantLimits()

V = TypeVar("V", bound=Value)


@dataclass(frozen=True, slots=True)
class AccessSnapshot:
    """The keys and the tenants' limits at one moment."""

    version: str | None = None
    keys: Mapping[str, StoredKey] = field(default_factory=dict)
    tenants: Mapping[str, TenantLimits] = field(default_factory=dict)


class ApiKeyCache:
    """The keys and limits that Redis has, and the operator's key, which needs no Redis.

    While Redis is away, what was known stays in force.
    """

    def __init__(self, redis: Redis, operator: SecretStr | None = None, metrics: Metrics = NULL_METRICS) -> None:
        self._redis: Any = redis
        self._operator = operator.get_secret_value() if operator else ""
        self._metrics = metrics
        self._known: AccessSnapshot | None = None
        self._read_at = time.monotonic()
        self._away = False

    def find_caller(self, key: str) -> Caller | None:
        """Whose key this is; None where it is nobody's. It takes the same time in both cases.

        Raises:
            StoreUnavailable: this process has not heard of the keys yet.
        """
        stored = self._known.keys.get(parse_key_id(key)) if self._known else None
        known, operators = verify_key(key, stored), bool(self._operator) and equal_keys(key, self._operator)
        if operators:
            return OPERATOR
        if self._known is None:
            raise StoreUnavailable("The keys are not known here yet", retry_after_s=1)
        return stored.caller if stored and known else None

    def tenant_limits(self, tenant: str) -> TenantLimits:
        """What the tenant may ask for; the defaults where nobody has set anything, or nothing was heard yet."""
        return self._known.tenants.get(tenant, NOTHING_SET) if self._known else NOTHING_SET

    async def refresh_forever(self) -> None:
        """Keep up with Redis, for ever."""
        while True:
            try:
                async with asyncio.timeout(REFRESH_TIMEOUT_S):
                    await self.refresh()
            except (StoreUnavailable, TimeoutError) as error:
                self._tell(away=True, reason=str(error) or type(error).__name__)
            except Exception:
                logger.exception("access_not_read")
            else:
                self._tell(away=False)
            self._metrics.set(ACCESS_AGE_S, time.monotonic() - self._read_at)
            await asyncio.sleep(REFRESH_EVERY_S)

    async def refresh(self) -> None:
        """Read what has changed, if anything has.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        begun = time.monotonic()
        with translate_redis_errors():
            if self._known is None or await self._redis.get(ACCESS_VERSION) != self._known.version:
                pipeline = self._redis.pipeline(transaction=True)
                pipeline.get(ACCESS_VERSION).hgetall(API_KEYS).hgetall(TENANTS)
                version, keys, tenants = await pipeline.execute(raise_on_error=False)
                known = self._known or AccessSnapshot()
                self._known = AccessSnapshot(
                    _read(version, known.version, str),
                    _read(keys, known.keys, partial(parse_rows, StoredKey)),
                    _read(tenants, known.tenants, partial(parse_rows, TenantLimits)),
                )
        self._read_at = begun

    def _tell(self, *, away: bool, reason: str | None = None) -> None:
        if away != self._away:
            self._away = away
            logger.warning("access_not_read" if away else "access_read_again", extra={"error": reason})


def _read(reply: Any, known: Any, read: Callable[[Any], Any]) -> Any:
    """What one of the keys holds; where it is corrupt, what was known of it before."""
    if is_key_error(reply):
        logger.error("access_key_unreadable", exc_info=reply)
        return known
    if isinstance(reply, RedisError):
        raise reply
    return None if reply is None else read(reply)


def parse_rows(kind: type[V], rows: Mapping[str, str]) -> dict[str, V]:
    """The rows that are one; what cannot be read costs none of the others, and a newer version may know more fields."""
    found: dict[str, V] = {}
    for name, text in rows.items():
        try:
            found[name] = kind.model_validate_json(text, extra="ignore")
        except ValidationError as error:
            logger.warning("access_row_unreadable", extra={"row": name, "problems": error.error_count()})
    return found
