"""The service under many times as many turns as it may run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from flood import Flood, quantile
from running_service import Service, beside
from slow_model import slow_model

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.long

PLACES = 8
RATE_PER_S = 80.0
"""Ten times what it may run; the machine is to do other things, too."""
SECONDS = 10.0


@pytest.fixture(scope="module")
def bounded(service: Service) -> Iterator[Service]:
    """With a model that takes a second, and places for a few turns."""
    with slow_model() as url:
        configuration: dict[str, Any] = {
            "model": {"name": "openai:slow", "base_url": url, "api_key_env": "STUB_KEY"},
            "admission": {"max_turns": PLACES, "max_waiting": PLACES, "max_wait_s": 2},
        }
        with beside(service, "overload", configuration) as running:
            yield running


def test_what_is_too_much_is_refused_and_nothing_else_changes(bounded: Service) -> None:
    flood, after = asyncio.run(_flooded(bounded.url))
    print(f"{flood.sent} asked, {len(flood.answered)} answered, {len(flood.refused)} refused")
    assert flood.wrong == [], "each is answered, or refused in JSON with a time to come back"
    assert len(flood.answered) + len(flood.refused) == flood.sent
    assert len(flood.refused) > flood.sent / 2
    assert len(flood.answered) > 0.6 * PLACES * SECONDS, "the places are in use all the time"
    assert quantile([took for _, took in flood.answered], 0.99) < 5
    assert (after.refused, after.wrong) == ([], [])
    assert quantile([took for _, took in after.answered], 0.5) < 2
    with bounded.client() as client:
        page = client.get("/metrics").text
    assert "ray_serve_app_turns_waiting" in page


async def _flooded(url: str) -> tuple[Flood, Flood]:
    """A flood, and five seconds after it as many turns as it may run."""
    flood, after = Flood(url), Flood(url)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60), trust_env=False) as client:
        await flood.at_a_rate(client, RATE_PER_S, SECONDS)
        await asyncio.sleep(5)
        await after.so_many_at_once(client, PLACES, 3)
    return flood, after
