"""How the events of a turn look in a terminal."""

from __future__ import annotations

import json
from typing import Any

from click import unstyle
from httpx_sse import ServerSentEvent
from scripted_chat import CALL, RESULT, RUN, answer

from serve_app.cli.chat import Transcript
from serve_app.errors import AgentUnavailable
from serve_app.values import (
    Answer,
    Cancelled,
    Failed,
    Failure,
    Token,
    ToolCall,
    ToolRequest,
)


def render(*steps: Any) -> str:
    """What a terminal shows of these events."""
    written: list[str] = []
    transcript = Transcript(written.append)
    for step in steps:
        transcript.show(ServerSentEvent(step.event, step.model_dump_json()))
    return unstyle("".join(written))


def test_how_a_turn_ended_is_known() -> None:
    ends = [answer("Hi"), Cancelled(run_id="r1"), Failed(error=Failure.of(AgentUnavailable("gone"), "q1"))]
    for end in ends:
        transcript = Transcript(lambda text: None)
        transcript.show(ServerSentEvent(end.event, end.model_dump_json()))
        assert transcript.result == end


def test_calls_of_one_step_each_get_their_outcome() -> None:
    other = ToolRequest(id="2", name="weather", arguments={"city": "Köln", "days": 3})
    late = ToolCall(name="weather", arguments=other.arguments, status="timeout", attempts=2, elapsed_ms=4000)
    assert render(CALL, other, RESULT, late) == (
        "⚙ order_query(order_id=OD-20240502) …\n"
        "⚙ weather(city=Köln, days=3) …\n"
        "⚙ order_query(order_id=OD-20240502) … ok 3 ms\n"
        "⚙ weather(city=Köln, days=3) … timeout 4000 ms, 2 attempts\n"
    )


def test_text_before_and_after_a_call_stands_on_lines_of_its_own() -> None:
    assert render(Token(text="Let me look."), CALL, Token(text="Well")) == (
        "Let me look.\n⚙ order_query(order_id=OD-20240502) …\nWell"
    )


def test_an_answer_that_starts_again_says_so() -> None:
    again = Token(text="New text", restart=True)
    assert render(Token(text="Old te"), again, answer("New text")) == (
        "Old te\n[the answer starts again; ignore the text above]\nNew text\n"
    )
    assert render(again, answer("New text")) == "New text\n", "nothing stands above"


def test_an_answer_without_tokens_is_shown_whole() -> None:
    assert render(RUN, answer("From the cache")) == "From the cache\n"
    assert render(Token(text="lost"), Token(text="", restart=True), answer("All of it")).endswith("\nAll of it\n")


def test_a_degraded_answer_names_what_was_missing() -> None:
    degraded = answer("As far as I know", status="degraded", degraded=["retriever", "tool:weather"])
    assert render(degraded) == "As far as I know\ndegraded: answered without retriever, tool:weather\n"


def test_what_a_terminal_would_obey_is_not_passed_on() -> None:
    hostile = "\x1b]0;owned\x07\x9b31mred\r\n\ttab"
    assert render(Token(text=hostile)) == "]0;owned31mred\n\ttab"
    assert "\x1b" not in render(ToolRequest(id="1", name="a", arguments={"b": hostile}))


def test_a_long_argument_is_cut() -> None:
    (line,) = render(ToolRequest(id="1", name="note", arguments={"text": "word " * 100})).splitlines()
    assert len(line) < 90
    assert line.endswith("…) …")


def test_events_and_fields_of_a_newer_service_are_passed_over() -> None:
    written: list[str] = []
    transcript = Transcript(written.append)
    transcript.show(ServerSentEvent("thought", "{}"))
    transcript.show(ServerSentEvent("token", '{"text": "Hi", "mood": "good"}'))
    newer = {**answer("Hi").model_dump(), "cached": True, "config_version": "7"}
    transcript.show(ServerSentEvent("answer", json.dumps(newer)))
    assert "".join(written) == "Hi\n"
    assert isinstance(transcript.result, Answer)
