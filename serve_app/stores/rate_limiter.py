"""Rate limits of tenants and API keys, kept in Redis for all processes.

One script checks all limits of a turn at once, by Redis's clock: if one limit refuses the turn, nothing is taken from
the others. The turn itself is charged before it begins. Its tokens are charged when it has ended and their number is
known; before, a limit of tokens needs room for one token only. So turns that run at the same time may use more tokens
than the limit, and later turns wait until it has recovered.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from redis.exceptions import RedisError

from serve_app.errors import RateLimited, StoreCorrupt, StoreUnavailable
from serve_app.observability.metric_catalogue import LIMITER_FAILURES
from serve_app.observability.metrics import NULL_METRICS
from serve_app.resilience.gcra import MAX_US, MIN_COST_US, SECOND_US, GcraLimit
from serve_app.stores.availability import RedisAvailability
from serve_app.stores.redis import is_key_error, translate_redis_errors
from serve_app.stores.redis_keys import rate_limit_key
from serve_app.values import Metering, RateLimits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redis.asyncio import Redis

    from serve_app.config import LimitSettings
    from serve_app.ports import Metrics
    from serve_app.stores.api_keys import ApiKeyCache
    from serve_app.values import Caller, Context

logger = logging.getLogger(__name__)

TAKE = """
-- KEYS limit...
-- ARGV (needed_us tolerance_us taken_us)...
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local used, longest, by = {}, 0, 0
for i, key in ipairs(KEYS) do
  used[i] = math.max(now, tonumber(redis.call('GET', key) or 0))
  local wait = used[i] + ARGV[3 * i - 2] - now - ARGV[3 * i - 1]
  if wait > longest then longest, by = wait, i end
end
if longest > 0 then return {longest, by} end
for i, key in ipairs(KEYS) do
  local taken = tonumber(ARGV[3 * i])
  if taken > 0 then
    local until_us = used[i] + taken
    redis.call('SET', key, string.format('%.0f', until_us), 'PX', math.ceil((until_us - now) / 1000))
  end
end
return {0, 0}
"""
"""Takes from all limits, or returns the longest wait in microseconds and the number of the limit that demands it."""
FAILURES_UNTIL_OPEN = 3
"""After so many failures in a row, one turn a second is checked, and the others pass unchecked. A call has the whole
`redis.timeout_s`: with less, a busy process would count its own delays as failures of Redis, and let all turns pass."""
NO_METERING = Metering()
NO_LIMITS = RateLimits()


@dataclass(frozen=True, slots=True)
class LimitCheck:
    """One limit that a turn takes from."""

    key: str
    """In Redis."""
    owner: Literal["tenant", "key"]
    unit: Literal["turns", "tokens"]
    limit: GcraLimit

    @property
    def arguments(self) -> tuple[int, int, int]:
        """The arguments of `TAKE`."""
        if self.unit == "turns":
            cost_us = self.limit.cost_us()
            return cost_us, self.limit.tolerance_us, cost_us
        return MIN_COST_US, self.limit.tolerance_of_sum_us, 0


class RateLimiter:
    """Rate limits in Redis, for one round trip a turn; without Redis all turns pass."""

    def __init__(
        self,
        redis: Redis,
        settings: LimitSettings,
        tenants: ApiKeyCache,
        metrics: Metrics = NULL_METRICS,
        availability: RedisAvailability | None = None,
    ) -> None:
        self._redis: Any = redis
        self._settings = settings
        self._tenants = tenants
        self._metrics = metrics
        self._availability = availability or RedisAvailability()

    async def take_turn(self, caller: Caller) -> Metering | None:
        """Take one turn from the limits of the caller's key and tenant.

        Returns what the tokens of the turn are charged to; None where no tokens are limited.

        Raises:
            RateLimited: one of the limits is used up; nothing was taken from the others.
        """
        of_tenant = _or_default(self._tenants.tenant_limits(caller.tenant).limits, self._settings.tenant)
        of_key = _or_default(caller.limits, self._settings.key) if caller.key_id else NO_LIMITS
        checks = [*_list_checks(caller, "tenant", of_tenant), *_list_checks(caller, "key", of_key)]
        if not checks:
            return None
        wait_us, number = await self._take(checks)
        if wait_us:
            refused = checks[number - 1]
            reason = f"This {refused.owner} has used up its {refused.unit} per minute"
            raise RateLimited(reason, retry_after_s=wait_us / SECOND_US)
        metering = Metering(
            tenant_per_minute=of_tenant.tokens_per_minute,
            key_per_minute=of_key.tokens_per_minute,
        )
        return metering if metering != NO_METERING else None

    async def _take(self, checks: list[LimitCheck]) -> tuple[int, int]:
        """Run `TAKE`; where Redis cannot, the turn passes and the failure is counted."""
        arguments = [argument for each in checks for argument in each.arguments]
        keys = [each.key for each in checks]
        if self._availability.admits(FAILURES_UNTIL_OPEN):
            try:
                with self._availability.observe_call(), translate_redis_errors():
                    wait_us, number = await self._redis.eval(TAKE, len(keys), *keys, *arguments)
                    return wait_us, number
            except StoreCorrupt:
                logger.exception("rate_limit_unreadable", extra={"keys": keys})
            except StoreUnavailable:
                logger.debug("rate_limit_not_checked", exc_info=True)  # `redis_unavailable` is logged once
        self._metrics.count(LIMITER_FAILURES, operation="ask")
        return 0, 0


class TokenMeter:
    """Charges tokens to the limits in Redis; while Redis is away, tokens are not charged."""

    def __init__(self, redis: Redis, metrics: Metrics = NULL_METRICS) -> None:
        self._redis: Any = redis
        self._metrics = metrics

    async def charge(self, used: Sequence[tuple[Context, int]]) -> None:
        """Take the tokens of each turn from its limits, also beyond them; never fails."""
        charges = [(context, *each) for context, tokens in used for each in _list_charges(context, tokens)]
        if not charges:
            return
        try:
            with translate_redis_errors():
                async with self._redis.pipeline(transaction=False) as pipe:
                    for _, key, cost_us in charges:
                        pipe.eval(TAKE, 1, key, 0, MAX_US, cost_us)
                    replies = await pipe.execute(raise_on_error=False)
                for (context, *_), reply in zip(charges, replies, strict=True):
                    if is_key_error(reply):
                        self._metrics.count(LIMITER_FAILURES, operation="charge")
                        logger.error("tokens_not_charged", extra=context.ids, exc_info=reply)
                    elif isinstance(reply, RedisError):
                        raise reply
        except StoreUnavailable as error:
            self._metrics.count(LIMITER_FAILURES, operation="charge")
            logger.warning("tokens_not_charged", extra={"runs": len(used), "error": str(error)})


def _or_default(limits: RateLimits, default: RateLimits) -> RateLimits:
    """Return `limits`, with the default's where one is not set."""
    if limits == NO_LIMITS:
        return default
    return default.model_copy(update=limits.model_dump(exclude_none=True))


def _list_checks(caller: Caller, owner: Literal["tenant", "key"], limits: RateLimits) -> Iterator[LimitCheck]:
    key_id = caller.key_id if owner == "key" else ""
    if (per_minute := limits.turns_per_minute) is not None:
        key = rate_limit_key(caller.tenant, key_id, "turns", per_minute)
        yield LimitCheck(key, owner, "turns", GcraLimit(per_minute, limits.turns_burst))
    if (per_minute := limits.tokens_per_minute) is not None:
        key = rate_limit_key(caller.tenant, key_id, "tokens", per_minute)
        yield LimitCheck(key, owner, "tokens", GcraLimit(per_minute, limits.tokens_burst))


def _list_charges(context: Context, tokens: int) -> Iterator[tuple[str, int]]:
    """Yield the keys that a turn's tokens are charged to, each with the cost."""
    metering = context.metering or NO_METERING
    rates = (("", metering.tenant_per_minute), (context.key_id, metering.key_per_minute))
    for key_id, per_minute in rates:
        if per_minute is not None and tokens > 0:
            yield rate_limit_key(context.tenant, key_id, "tokens", per_minute), GcraLimit(per_minute).cost_us(tokens)
