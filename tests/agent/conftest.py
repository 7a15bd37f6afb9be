"""Fixtures: agent processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from agent_process import AgentProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis.asyncio import Redis


@pytest.fixture
async def start_agent(redis: Redis) -> AsyncIterator[Callable[..., AgentProcess]]:
    """Starts processes that run turns over one Redis; all of them end with the test."""
    agents: list[AgentProcess] = []

    def begin(*replies: Any, **given: Any) -> AgentProcess:
        agents.append(AgentProcess(redis, *replies, **given))
        return agents[-1]

    yield begin
    for agent in agents:
        await agent.die()
