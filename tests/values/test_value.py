"""Every value survives JSON, whatever it holds, and pickling between processes of two versions."""

from __future__ import annotations

import json
import pickle
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from serve_app.values import Answer, Citation, Context, Token, ToolCall, ToolRequest

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


CONTEXT = Context(request_id="r", run_id="r", session_id="s", deadline=9.0, timeout_s=7)


class Later(Context):
    """What the next version makes of a context."""

    later: int = 3


def _of_another_version(value: Context, kind: type[Context]) -> Context:
    """As `kind` reads what was pickled as another version of it."""
    made = kind.__new__(kind)
    made.__setstate__(pickle.loads(pickle.dumps(value.__getstate__())))
    return made


def test_a_value_is_what_it_was_after_pickling() -> None:
    assert pickle.loads(pickle.dumps(CONTEXT)) == CONTEXT
    whole = Citation(source="s", title="t", passage="p", score=1)
    assert pickle.loads(pickle.dumps(whole)) == whole


def test_a_field_that_the_version_before_does_not_know_has_its_default() -> None:
    read = _of_another_version(CONTEXT, Later)
    assert isinstance(read, Later)
    assert (read.later, read.timeout_s) == (3, 7)


def test_a_field_that_is_not_known_here_is_left_out() -> None:
    sent = Later(**CONTEXT.model_dump(), later=5)
    assert _of_another_version(sent, Context) == CONTEXT
