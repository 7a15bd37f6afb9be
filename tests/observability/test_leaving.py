"""Does nothing leave the process that was not redacted?"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from serve_app.observability.export import CUT, MAX_CHARACTERS, cut
from serve_app.observability.messages import in_parts
from serve_app.observability.redaction import Redactor

SECRET = "13800138000"
TEXTS = st.text() | st.just(SECRET)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS | st.just(int(SECRET)),
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)


REDACTOR = Redactor()


@given(values)
def test_no_secret_leaves_wherever_it_stands(value: Any) -> None:
    assert SECRET not in json.dumps(cut(REDACTOR.redact_value(value)))


@given(values)
def test_short_values_are_not_cut(value: Any) -> None:
    assert cut(value) == json.loads(json.dumps(value))


def test_a_value_of_another_kind_leaves_as_redacted_text() -> None:
    assert cut(REDACTOR.redact_value({"at": {SECRET}})) == {"at": "{'[phone]'}"}


def test_a_text_is_cut_only_after_its_secrets_are_gone() -> None:
    text = "x" * (MAX_CHARACTERS - 6) + " " + SECRET + " " + "y" * 100
    left = cut(REDACTOR.redact_value(text))
    assert left == f"{'x' * (MAX_CHARACTERS - 6)} [phon{CUT}"
    assert SECRET[:5] not in left


def test_what_no_sink_could_write_is_replaced() -> None:
    assert cut("a\ud800b") == "a?b"


def test_messages_are_told_in_parts() -> None:
    call = {"id": "c0", "function": {"name": "echo", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "text", "text": "Wait"}], "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c0", "content": "x"},
    ]
    assert in_parts(messages, "user") == [
        {"role": "user", "parts": [{"type": "text", "content": "Hi"}]},
        {
            "role": "assistant",
            "parts": [
                {"type": "text", "content": "Wait"},
                {"type": "tool_call", "id": "c0", "name": "echo", "arguments": "{}"},
            ],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c0", "response": "x"}]},
    ]
    assert in_parts("Hi", "user") == [{"role": "user", "parts": [{"type": "text", "content": "Hi"}]}]
    assert in_parts(None, "user") is None
