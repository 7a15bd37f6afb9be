"""Which processes do the agent's tests run?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from desk import Desk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis.asyncio import Redis


@pytest.fixture
async def open_desk(redis: Redis) -> AsyncIterator[Callable[..., Desk]]:
    """Starts processes that run turns over one Redis; all of them end with the test."""
    desks: list[Desk] = []

    def begin(*replies: Any, **given: Any) -> Desk:
        desks.append(Desk(redis, *replies, **given))
        return desks[-1]

    yield begin
    for desk in desks:
        await desk.die()
