"""How much has each tenant and each key asked for and used, whichever process it asked?

One script sees to all allowances of a turn at once, by Redis's clock: a turn that one of them has no room for takes
from none. Turns are taken before they begin, tokens when the turn has ended and they are known: before it, there need
only be room for one. Turns that run side by side may so use more than there is, and those that follow wait for it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from serve_app.errors import RateLimited, StoreCorrupt, StoreUnavailable
from serve_app.observability.metric_catalogue import LIMITER_FAILURES
from serve_app.observability.null import NULL_METRICS
from serve_app.resilience.circuit_breaker import BreakerPolicy, GuardedCalls
from serve_app.resilience.gcra import MAX_US, MIN_COST_US, GcraLimit
from serve_app.stores.redis import is_key_error, translate_redis_errors
from serve_app.stores.redis_keys import rate_limit_key
from serve_app.values import Metering, RateLimits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redis.asyncio import Redis

    from serve_app.config import LimitSettings
    from serve_app.ports import Metrics
    from serve_app.stores.api_key_cache import ApiKeyCache
    from serve_app.values import Caller, Context

logger = logging.getLogger(__name__)

TAKE = """
-- KEYS allowance...
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
"""Takes from all allowances, or says how long one has no room, in microseconds, and which."""
BLIND = BreakerPolicy(failures=3, cool_down_s=1)
"""After so many failures turns are let in unasked, but for one in each second. A failure takes `redis.timeout_s`: a
shorter time would take the lateness of this very process, when it is busy, for that of Redis, and let all in."""
NAMES = {"turns": "turns per minute", "tokens": "tokens per minute"}


@dataclass(frozen=True, slots=True)
class LimitCheck:
    """One allowance that a turn needs."""

    key: str
    whose: str
    of: str
    limit: GcraLimit

    @property
    def arguments(self) -> tuple[int, int, int]:
        """As the script takes them."""
        if self.of == "turns":
            cost_us = self.limit.cost_us()
            return cost_us, self.limit.tolerance_us, cost_us
        return MIN_COST_US, self.limit.tolerance_of_sum_us, 0


class RateLimiter:
    """Rate limits in Redis: one round trip a turn where something is limited. While Redis is away all pass."""

    def __init__(
        self, redis: Redis, settings: LimitSettings, tenants: ApiKeyCache, metrics: Metrics = NULL_METRICS
    ) -> None:
        self._redis: Any = redis
        self._settings = settings
        self._tenants = tenants
        self._metrics = metrics
        self._circuit = GuardedCalls("limiter", BLIND)

    async def take_turn(self, caller: Caller) -> Metering | None:
        """Take a turn from what the caller's key and tenant may have; what its tokens are to be charged to.

        Raises:
            RateLimited: one of them has no room; nothing was taken from either.
        """
        tenants = _or(self._tenants.tenant_limits(caller.tenant).limits, self._settings.tenant)
        keys = _or(caller.limits, self._settings.key) if caller.key_id else None
        asked = [*_asked(caller, "tenant", tenants), *(_asked(caller, "key", keys) if keys else ())]
        if not asked:
            return None
        wait_us, by = await self._taken(asked)
        if wait_us:
            refused = asked[by - 1]
            what = f"This {refused.whose} has used up its {NAMES[refused.of]}"
            raise RateLimited(what, retry_after_s=wait_us / 1_000_000)
        metering = Metering(
            tenant_per_minute=tenants.tokens_per_minute, key_per_minute=keys.tokens_per_minute if keys else None
        )
        return metering if metering != NOBODY else None

    async def _taken(self, asked: list[LimitCheck]) -> tuple[int, int]:
        arguments = [argument for each in asked for argument in each.arguments]
        keys = [each.key for each in asked]
        try:
            with self._circuit.guard(StoreUnavailable, (StoreUnavailable,)), translate_redis_errors():
                wait_us, by = await self._redis.eval(TAKE, len(keys), *keys, *arguments)
        except StoreUnavailable as error:  # the circuit tells the log, once, but nothing of one key that is corrupt
            self._metrics.count(LIMITER_FAILURES, operation="ask")
            if isinstance(error, StoreCorrupt):
                logger.exception("allowance_unreadable", extra={"keys": keys})
            return 0, 0
        return wait_us, by


class TokenMeter:
    """Charges tokens to the limits in Redis; tokens that Redis could not be told of are not charged."""

    def __init__(self, redis: Redis, metrics: Metrics = NULL_METRICS) -> None:
        self._redis: Any = redis
        self._metrics = metrics

    async def charge(self, used: Sequence[tuple[Context, int]]) -> None:
        """Take the tokens of each turn from what its key and tenant may have, though there be no more; never fails."""
        charges = [(context, *each) for context, tokens in used for each in _charges(context, tokens)]
        if not charges:
            return
        try:
            with translate_redis_errors():
                async with self._redis.pipeline(transaction=False) as pipe:
                    for _, key, cost_us in charges:
                        pipe.eval(TAKE, 1, key, 0, MAX_US, cost_us)
                    outcomes = await pipe.execute(raise_on_error=False)
                for (context, *_), outcome in zip(charges, outcomes, strict=True):
                    if is_key_error(outcome):
                        self._metrics.count(LIMITER_FAILURES, operation="charge")
                        logger.error("tokens_not_charged", extra=context.ids, exc_info=outcome)
                    elif isinstance(outcome, RedisError):
                        raise outcome
        except StoreUnavailable as error:
            self._metrics.count(LIMITER_FAILURES, operation="charge")
            logger.warning("tokens_not_charged", extra={"runs": len(used), "error": str(error)})


NOBODY = Metering()
NOTHING_SET = RateLimits()


def _or(limits: RateLimits, default: RateLimits) -> RateLimits:
    """What was set, and where nothing was, the default."""
    if limits == NOTHING_SET:
        return default
    return default.model_copy(update=limits.model_dump(exclude_none=True))


def _asked(caller: Caller, whose: str, limits: RateLimits) -> Iterator[LimitCheck]:
    key_id = caller.key_id if whose == "key" else ""
    if (per_minute := limits.turns_per_minute) is not None:
        key = rate_limit_key(caller.tenant, key_id, "turns", per_minute)
        yield LimitCheck(key, whose, "turns", GcraLimit(per_minute, limits.turns_burst))
    if (per_minute := limits.tokens_per_minute) is not None:
        key = rate_limit_key(caller.tenant, key_id, "tokens", per_minute)
        yield LimitCheck(key, whose, "tokens", GcraLimit(per_minute, limits.tokens_burst))


def _charges(context: Context, tokens: int) -> Iterator[tuple[str, int]]:
    """The keys that a turn's tokens are charged to, and the cost of them."""
    metering = context.metering or NOBODY
    rates = (("", metering.tenant_per_minute), (context.key_id, metering.key_per_minute))
    for key_id, per_minute in rates:
        if per_minute is not None and tokens > 0:
            yield rate_limit_key(context.tenant, key_id, "tokens", per_minute), GcraLimit(per_minute).cost_us(tokens)
