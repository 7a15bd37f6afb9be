"""The real service answers polite clients beside rude ones, without nginx."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import httpx
import pytest
from rude_client_kinds import DRIPPING, KINDS, rudely

if TYPE_CHECKING:
    from running_service import Service

pytestmark = pytest.mark.long

WORST_S = 5.0
"""For one turn, of tens of milliseconds, beside the rude ones; the benchmark `rude_clients.py` has the figures."""


async def _time_turns(service: Service, turns: int) -> list[float]:
    took_s = []
    async with httpx.AsyncClient(base_url=service.url, timeout=30, trust_env=False) as http:
        for number in range(turns):
            begun = time.monotonic()
            response = await http.post(
                "/agent/chat", json={"user_input": "hello", "session_id": f"polite-{number % 5}"}
            )
            assert response.status_code == 200, response.text
            took_s.append(time.monotonic() - begun)
            await asyncio.sleep(0.05)
    return took_s


@pytest.mark.parametrize("kind", KINDS)
async def test_polite_clients_are_answered_and_rude_ones_hold_no_place(service: Service, kind: str) -> None:
    async with rudely(service.url, kind) as outcomes:
        took_s = await _time_turns(service, 60)
        if kind == "bodies drip":
            await asyncio.sleep(3)
            assert outcomes["408"] >= DRIPPING - 120, outcomes  # fifty of each of two ingresses may take their time
    assert max(took_s) < WORST_S
    if kind == "10,000 headers":
        assert set(outcomes) == {"431"}
    if kind == "100 MB":
        assert set(outcomes) <= {"413", "cut off"}
    assert max(await _time_turns(service, 10)) < WORST_S
    service.wait_until_ready(10)
