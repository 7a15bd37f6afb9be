"""No client steers Ray Serve by the headers that Serve reads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from running_service import beside

if TYPE_CHECKING:
    from running_service import Service
    from stub_server import Stub

STEERING = [
    {"X-Request-Timeout-Seconds": "0"},
    {"X-Request-Timeout-Seconds": "-1"},
    {"X-Request-Timeout-Seconds": "no number"},
    {"X-Request-Disconnect-Disabled": "?1"},
    {"X-Session-Id": "steered-other"},
    {"serve_multiplexed_model_id": "steered"},
    {"Serve-Multiplexed-Model-Id": "steered"},
]


def _read_session(service: Service, session: str) -> dict[str, Any]:
    with service.client() as client:
        session_body: dict[str, Any] = client.get(f"/agent/sessions/{session}").json()
    return session_body


def _without_age(session: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in session.items() if name != "expires_in_s"}


def test_they_change_no_turn_and_nobody_elses_conversation(service: Service) -> None:
    service.ask("Where is OD-20240502?", "steered-other")
    before = _without_age(_read_session(service, "steered-other"))
    for number, headers in enumerate(STEERING):
        body = {"user_input": "Where is OD-20240502?", "session_id": f"steered-{number}"}
        with service.client() as client:
            answered = client.post("/agent/chat", json=body, headers=headers)
        assert answered.status_code == 200, f"{headers}: {answered.text}"
        assert answered.json()["session_id"] == f"steered-{number}"
        assert "OD-20240502" in answered.json()["result"]
        assert _read_session(service, f"steered-{number}")["turns"] == 1
    assert _without_age(_read_session(service, "steered-other")) == before


def test_a_client_that_has_itself_cut_off_stops_no_run(service: Service) -> None:
    """Serve takes its word and answers 408 itself, unless nginx or `guards:guards` drops the header first."""
    body = {"user_input": "Where is OD-20240502?", "session_id": "steered-short"}
    key = {"Idempotency-Key": "steered-short"}
    with service.client() as client:
        cut = client.post("/agent/chat", json=body, headers={**key, "X-Request-Timeout-Seconds": "0.02"})
        assert cut.status_code in {200, 408}
        ended = client.post("/agent/chat", json=body, headers=key)
    assert ended.status_code == 200
    assert "OD-20240502" in ended.json()["result"]
    assert _read_session(service, "steered-short")["turns"] == 1


@pytest.mark.long
def test_they_prolong_no_deadline(service: Service, stub: Stub) -> None:
    model = {"name": "openai:silent", "base_url": stub.url, "api_key_env": "STUB_KEY", "attempts": 1}
    configuration = {"model": model, "agent": {"turn_timeout_s": 2}, "knowledge": {"collection": "steered"}}
    with beside(service, "steered", configuration) as hurried, hurried.client() as client:
        for headers in ({"X-Request-Timeout-Seconds": "0"}, {"X-Request-Timeout-Seconds": "3600"}):
            begun = time.monotonic()
            late = client.post("/agent/chat", json={"user_input": "hello", "session_id": "s1"}, headers=headers)
            assert late.status_code == 504, late.text
            assert late.json()["error"]["code"] == "deadline_exceeded"
            assert time.monotonic() - begun < 20
