"""Every value has JSON that can be read again, whatever a model or a tool has put into it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from serve_app.values import Answer, Token, ToolCall, ToolRequest

ANY_TEXT = st.text(st.characters(categories=["L", "N", "Cs", "Cc"]), max_size=8)
LEAVES = st.one_of(
    ANY_TEXT, st.integers(), st.floats(), st.binary(max_size=4), st.none(), st.booleans(), st.builds(object)
)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3), max_leaves=8
)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@given(ANY_TEXT, st.dictionaries(ANY_TEXT, ANYTHING, max_size=3), st.sampled_from([0, 100, 210, 400]))
def test_a_value_is_written_and_read_whatever_it_holds(text: str, arguments: dict[str, Any], levels: int) -> None:
    given_arguments = {**arguments, "deep": nested(levels), "long": 10**5000}
    for value in (
        Token(text=text),
        ToolRequest(id=text, name=text, arguments=given_arguments),
        Answer(
            result=text,
            session_id="s",
            run_id="r",
            model=text,
            degraded=[text],
            tool_calls=[ToolCall(name=text, arguments=given_arguments, status="ok", attempts=1, elapsed_ms=1)],
        ),
    ):
        json.loads(value.model_dump_json().encode().replace(b"0" * 5000, b""))
        sound = value.sanitize()
        assert type(value).model_validate_json(sound.model_dump_json()).model_dump_json() == sound.model_dump_json()


def test_what_json_can_say_stays_the_very_same_value() -> None:
    value = ToolRequest(id="c", name="n", arguments={"a": ["订单", 1.5, None, {"b": True}], "long": "x" * 1000})
    assert value.sanitize() is value
