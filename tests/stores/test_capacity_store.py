"""An ingress gets its share of what the living agents report, and nothing of the dead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.stores import capacity_store
from serve_app.stores.capacity_store import AgentReport, CapacityShare, CapacityStore
from serve_app.stores.redis_keys import AGENTS, INGRESSES

if TYPE_CHECKING:
    import pytest
    from captured_logs import CapturedLogs
    from redis.asyncio import Redis


async def test_what_all_agents_hold_is_shared_among_the_ingresses(redis: Redis) -> None:
    first, second = CapacityStore(redis, "i1"), CapacityStore(redis, "i2")
    assert await first.read_share() is None, "no agent has reported"
    await CapacityStore(redis, "a1").report_agent(AgentReport(1200, 0.1))
    await CapacityStore(redis, "a2").report_agent(AgentReport(600, 0.3))
    assert await first.read_share() == CapacityShare(1800, agents=2, busy=0.2)
    assert await second.read_share() == CapacityShare(900, agents=2, busy=0.2)
    assert await first.read_share() == CapacityShare(900, agents=2, busy=0.2)


async def test_an_agent_that_shuts_down_counts_no_more(redis: Redis) -> None:
    staying, ending = CapacityStore(redis, "a1"), CapacityStore(redis, "a2")
    for each in (staying, ending):
        await each.report_agent(AgentReport(1000, 0.0))
    await ending.withdraw_agent()
    assert await CapacityStore(redis, "i").read_share() == CapacityShare(1000, agents=1, busy=0.0)


async def test_a_replica_that_reports_no_more_is_forgotten(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    await CapacityStore(redis, "dead").report_agent(AgentReport(1000, 0.0))
    await CapacityStore(redis, "dead").read_share()
    now, _ = await redis.time()
    long_ago = now - capacity_store.FRESH_S - 1
    await redis.hset(AGENTS, "dead", f"{long_ago} 1000 0.0")  # type: ignore[misc]
    await redis.hset(INGRESSES, "dead", f"{long_ago} ")  # type: ignore[misc]
    await CapacityStore(redis, "alive").report_agent(AgentReport(500, 0.0))
    assert await CapacityStore(redis, "i").read_share() == CapacityShare(500, agents=1, busy=0.0)
    assert set(await redis.hkeys(AGENTS)) == {"alive"}  # type: ignore[misc]
    assert set(await redis.hkeys(INGRESSES)) == {"i"}  # type: ignore[misc]


async def test_a_report_that_cannot_be_read_costs_no_other(redis: Redis, captured_logs: CapturedLogs) -> None:
    now, _ = await redis.time()
    for replica, text in {"odd": f"{now} many", "newer": f"{now} 1 2 3", "none": "garbage"}.items():
        await redis.hset(AGENTS, replica, text)  # type: ignore[misc]
    await CapacityStore(redis, "a").report_agent(AgentReport(700, 0.0))
    assert await CapacityStore(redis, "i").read_share() == CapacityShare(700, agents=1, busy=0.0)
    assert len(captured_logs.of("agent_report_unreadable")) == 2
