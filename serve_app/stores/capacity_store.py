"""The capacity of the agents: what each replica reports, and the share of one ingress."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serve_app.stores.redis import translate_redis_errors
from serve_app.stores.redis_keys import AGENTS, INGRESSES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

REPORT_EVERY_S = 1.0
FRESH_S = 4
"""A replica that has reported nothing for so long counts as gone."""

REPORT = """
-- KEYS replicas
-- ARGV replica report fresh_s
local now = tonumber(redis.call('TIME')[1])
redis.call('HSET', KEYS[1], ARGV[1], now .. ' ' .. ARGV[2])
redis.call('EXPIRE', KEYS[1], 10 * ARGV[3])
"""
READ = (
    REPORT
    + """
local function living(key)
  local found, all = {}, redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local at, report = all[i + 1]:match('^(%d+) (.*)$')
    if at and now - at <= tonumber(ARGV[3]) then
      found[#found + 1] = report
    else
      redis.call('HDEL', key, all[i])
    end
  end
  return found
end
return {living(KEYS[2]), #living(KEYS[1])}
"""
)


@dataclass(frozen=True, slots=True)
class AgentReport:
    """What one Agent replica reports."""

    max_runs: int
    busy: float
    """The share of time, 0-1, in which its event loop works or waits for a core."""


@dataclass(frozen=True, slots=True)
class CapacityShare:
    """The capacity that one Ingress replica may use."""

    turns: int
    """The runs that all agents may hold, shared among the ingresses."""
    agents: int
    busy: float
    """The mean of the agents' event loops."""


class CapacityStore:
    """The reports of replicas in Redis."""

    def __init__(self, redis: Redis, replica: str) -> None:
        self._redis: Any = redis
        self._replica = replica

    async def report_agent(self, report: AgentReport) -> None:
        """Report what this Agent replica may hold.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        text = f"{report.max_runs} {report.busy:.4f}"
        with translate_redis_errors():
            await self._redis.eval(REPORT, 1, AGENTS, self._replica, text, FRESH_S)

    async def withdraw_agent(self) -> None:
        """Report that this Agent replica takes no more runs.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        with translate_redis_errors():
            await self._redis.hdel(AGENTS, self._replica)

    async def read_share(self) -> CapacityShare | None:
        """Report this Ingress replica, and return its share; None where no agent reports.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        with translate_redis_errors():
            reports, ingresses = await self._redis.eval(READ, 2, INGRESSES, AGENTS, self._replica, "", FRESH_S)
        agents = list(_parse_reports(reports))
        if not agents:
            return None
        turns = sum(each.max_runs for each in agents) // max(1, ingresses)
        return CapacityShare(max(1, turns), len(agents), sum(each.busy for each in agents) / len(agents))


def _parse_reports(texts: list[str]) -> Iterator[AgentReport]:
    for text in texts:
        try:
            max_runs, busy = text.split()
            yield AgentReport(int(max_runs), float(busy))
        except ValueError:  # of another version
            logger.warning("agent_report_unreadable", extra={"report": text[:100]})
