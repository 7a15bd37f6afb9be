"""A session grows by the same size with each turn, however long it is."""

from __future__ import annotations

import runpy
from typing import TYPE_CHECKING

import pytest
from running_service import ROOT

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def test_the_last_turns_take_up_no_more_than_the_first(redis: Redis) -> None:
    benchmark = runpy.run_path(str(ROOT / "tests" / "benchmarks" / "session_length.py"))
    found = await benchmark["measured"](redis, turns=60, stretches=3)
    assert found.bytes_per_turn == pytest.approx([found.bytes_per_turn[0]] * 3, rel=0.1)
