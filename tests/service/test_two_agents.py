"""Two agent replicas serve as one, and one alone after the other is killed."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from ray import serve
from running_service import beside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from running_service import Service

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def double(service: Service) -> Iterator[Service]:
    tools = {"order_query": {"function": "serve_app.tools.orders:order_query"}}
    orders = {"url": "http://127.0.0.1:1/never"}
    with beside(service, "double", {"tools": tools, "orders": orders}, Agent=2) as running:
        give_up = time.monotonic() + 120
        while _agents() < 2:
            assert time.monotonic() < give_up
            time.sleep(0.5)
        yield running


def _agents() -> int:
    return serve.status().applications["double"].deployments["Agent"].replica_states.get("RUNNING", 0)


def test_both_see_one_window_and_run_one_turn_of_a_session_at_a_time(double: Service) -> None:
    def converse(number: int) -> None:
        for turn in range(4):
            double.ask(f"Hello, this is message {number}-{turn}", f"double{number}")

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(converse, [number % 10 for number in range(20)]))
    with double.client() as client:
        for number in range(10):
            session = client.get(f"/agent/sessions/double{number}").json()
            inputs = [exchange["messages"][0]["content"] for exchange in session["exchanges"]]
            assert session["turns"] == len(inputs) == 8
            assert sorted(inputs) == sorted(
                f"Hello, this is message {number}-{turn}" for turn in range(4) for _ in "ab"
            )


def test_when_one_is_killed_the_other_goes_on_with_its_sessions(double: Service) -> None:
    double.ask("Hello, I am the first message", "survivor")
    victims = double.processes("ServeReplica:double:Agent")
    assert len(victims) == 2
    victims[0].send_signal(signal.SIGKILL)
    give_up, answered = time.monotonic() + 10, 0
    while answered < 10:
        assert time.monotonic() < give_up
        with double.client() as client:
            response = client.post("/agent/chat", json={"user_input": "Hello again", "session_id": "survivor"})
        assert response.status_code in {200, 503}
        answered += response.status_code == 200
    with double.client() as client:
        session = client.get("/agent/sessions/survivor").json()
    assert session["exchanges"][0]["messages"][0]["content"] == "Hello, I am the first message"
    assert session["turns"] >= 11
