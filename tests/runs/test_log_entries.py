"""Log entries: events come back unchanged, and neighbouring tokens are merged."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from serve_app.runs.event_log import LogEntry, merge_text, parse_entry, sort_entries
from serve_app.values import Answer, EventData, Failed, Failure, RunEvent, RunStarted, Token, ToolCall, ToolRequest

FAILURE = Failure(code="c", message="m", retryable=True, request_id="q")
OTHERS = [
    RunStarted(run_id="r", recovered=True),
    ToolRequest(id="c", name="n", arguments={"a": ["订单", 1, None]}),
    ToolCall(name="n", arguments={}, status="unknown", attempts=1, elapsed_ms=1.5),
    Answer(result="x", session_id="s", run_id="r", model="m", degraded=["memory"], status="degraded"),
    Failed(error=FAILURE),
]
TOKENS = st.builds(Token, text=st.text(min_size=1), restart=st.booleans())
STEPS = st.lists(st.tuples(st.one_of(TOKENS, st.sampled_from(OTHERS)), st.just("")))


def _text_of(steps: list[tuple[EventData, str]]) -> str:
    text = ""
    for data, _ in steps:
        if isinstance(data, Token):
            text = data.text if data.restart else text + data.text
    return text


@given(st.one_of(TOKENS, st.sampled_from(OTHERS)), st.integers(1, 10**9), st.text())
def test_an_event_comes_out_of_the_log_as_it_went_in(data: EventData, number: int, state: str) -> None:
    given_entry = LogEntry(RunEvent(id=number, data=data), state)
    _, name, body, logged_state = given_entry.arguments
    fields = {"event": name, "data": body, **({"state": logged_state} if logged_state else {})}
    assert parse_entry(f"{number}-0", fields) == given_entry


@given(STEPS)
def test_merging_tokens_changes_neither_the_text_nor_the_other_steps(steps: list[tuple[EventData, str]]) -> None:
    joined = merge_text(steps)
    assert _text_of(joined) == _text_of(steps)
    others = [each for each in steps if not isinstance(each[0], Token)]
    assert [each for each in joined if not isinstance(each[0], Token)] == others
    pairs = pairwise(joined)
    assert not [1 for (a, _), (b, _) in pairs if isinstance(a, Token) and isinstance(b, Token) and not b.restart]


def test_the_entries_of_both_streams_stand_as_they_happened() -> None:
    entries = [LogEntry(RunEvent(id=number, data=Token(text="x"))) for number in (11, 2, 9, 10)]
    assert [each.event.id for each in sort_entries(entries)] == [2, 9, 10, 11]
