"""An event is the same in another process, and its JSON is made once."""

from __future__ import annotations

import pickle

import pytest

from serve_app.values import Answer, Cancelled, Failed, Failure, RunEvent, Token, ToolCall, Usage

EVENTS = [
    RunEvent(id=1, data=Token(text="naïve 订单 \U0001f600", restart=True)),
    RunEvent(
        id=2,
        data=ToolCall(
            name="t", arguments={"a": [1, {"b": None}], "c": 0.1}, status="unknown", attempts=2, elapsed_ms=1.5
        ),
    ),
    RunEvent(
        id=3,
        data=Answer(
            result="yes",
            session_id="s",
            run_id="r",
            model="m",
            status="degraded",
            degraded=["model"],
            usage=Usage(input_tokens=3),
        ),
    ),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_an_event_crosses_to_another_process_with_its_json(event: RunEvent) -> None:
    there: RunEvent = pickle.loads(pickle.dumps(event))
    assert there == event
    assert type(there.data) is type(event.data)
    assert there.json_data == event.json_data == event.data.model_dump_json()


def test_a_failure_keeps_what_is_not_in_its_json() -> None:
    failure = Failure(code="overloaded", message="Full", retryable=True, request_id="r", retry_after_s=7)
    there: RunEvent = pickle.loads(pickle.dumps(RunEvent(id=4, data=Failed(error=failure))))
    assert isinstance(there.data, Failed)
    assert there.data.error.retry_after_s == 7


def test_data_of_a_later_version_is_passed_on_and_read_without_its_new_fields() -> None:
    event = RunEvent(id=3, data=Token(text="hello"))
    event.json_data = '{"text":"hello","restart":false,"language":"en"}'
    there: RunEvent = pickle.loads(pickle.dumps(event))
    assert there.json_data == event.json_data
    assert there.data == Token(text="hello")


def test_the_last_event_is_known_without_its_data() -> None:
    assert [event.name for event in EVENTS if event.last] == ["answer"]
    assert RunEvent(id=1, data=Cancelled(run_id="r")).last
