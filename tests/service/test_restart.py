"""A store that is killed is back soon, with its data; nothing of it is left for the next test."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from serve_app.deployments.embedded_stores import choose_ports

if TYPE_CHECKING:
    from running_service import Service

BACK_WITHIN_S = 15

DOCUMENT = (
    "# Robot R-2\n\n" + "The robot vacuum cleaner returns to its dock when the battery falls below ten percent. " * 4
)


def _answers_within(service: Service, text: str, session: str, seconds: float) -> dict[str, object]:
    """The first answer that comes, asked again until then."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            return service.ask(text, session)
        except (AssertionError, httpx.HTTPError):
            if time.monotonic() > give_up:
                raise
            time.sleep(0.2)


@pytest.mark.parametrize("store", ["redis", pytest.param("milvus", marks=pytest.mark.long)])
def test_a_store_that_is_killed_is_back_within_fifteen_seconds_with_its_data(service: Service, store: str) -> None:
    with service.client() as client:
        added = client.post("/knowledge/documents", json={"documents": [{"source": "robot.md", "text": DOCUMENT}]})
    assert added.json()["documents"][0]["status"] in {"added", "unchanged"}
    service.ask("Where is OD-20240502?", f"before-{store}")
    ports = choose_ports(service.data_dir)
    words = ("redis-server", f":{ports.redis}") if store == "redis" else ("milvus_server", f" {ports.milvus}")
    victims = service.processes(*words)
    assert len(victims) == 1
    victims[0].send_signal(signal.SIGKILL)

    begun = time.monotonic()
    answers = _answers_within(service, "Which order did I ask about?", f"before-{store}", BACK_WITHIN_S)
    assert "OD-20240502" in str(answers["result"])
    found = _answers_within(service, "When does the robot vacuum return to its dock?", f"after-{store}", BACK_WITHIN_S)
    while not found["citations"] and time.monotonic() - begun < BACK_WITHIN_S:
        found = service.ask("When does the robot vacuum return to its dock?", f"after-{store}")
    assert "ten percent" in str(found["result"])
    assert found["status"] == "success"
    assert time.monotonic() - begun < BACK_WITHIN_S
    service.wait_until_ready(BACK_WITHIN_S)
