"""Answer, thinking and written calls are separated in a reply's text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.llm.reply_text import LEFTOVERS, LONE_ENDS, MAX_BROKEN, THINKING_MARKS, Part, TextReader
from serve_app.llm.text_calls import CALL_MARKS

MARKS = [*THINKING_MARKS, *THINKING_MARKS.values(), *LONE_ENDS, *LEFTOVERS, *CALL_MARKS, *CALL_MARKS.values()]
CALL = '{"name": "order_query", "arguments": {"order_id": "OD-1"}}'
SPELLED = {
    "hermes": f"<tool_call>\n{CALL}\n</tool_call>",
    "hermes without its end": f"<tool_call>\n{CALL}",
    "several in a list": f"<tool_call>[{CALL}]</tool_call>",
    "glm": "<tool_call>order_query\n<arg_key>order_id</arg_key>\n<arg_value>OD-1</arg_value>\n</tool_call>",
    "qwen3-coder": "<tool_call>\n<function=order_query>\n<parameter=order_id>\nOD-1\n</parameter>\n</function>"
    "</tool_call>",
    "llama": '<function=order_query>{"order_id": "OD-1"}</function>',
    "llama 3": '<|python_tag|>{"name": "order_query", "parameters": {"order_id": "OD-1"}}',
    "mistral": f"[TOOL_CALLS] [{CALL}]",
    "mistral's later form": '[TOOL_CALLS]order_query[ARGS]{"order_id": "OD-1"}',
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>order_query:0<|tool_call_argument_begin|>"
    '{"order_id": "OD-1"}<|tool_call_end|><|tool_calls_section_end|>',
    "deepseek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>order_query\n```json\n"
    '{"order_id": "OD-1"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
}


def _read(text: str, size: int | None = None, *, holds: bool = False) -> tuple[str, str, list[tuple[str, object]]]:
    reader = TextReader(lambda call: call.name == "order_query", holds_text=holds)
    parts = []
    for place in range(0, len(text), size or max(len(text), 1)):
        parts += reader.feed(text[place : place + (size or len(text))])
    parts += reader.finish()
    shown = ""
    for part in parts:
        shown = "" if part.kind == "retract" else shown + part.text * (part.kind == "text")
    assert shown == reader.answer, "what a stream has shown is the answer"
    thinking = "".join(part.text for part in parts if part.kind == "thinking")
    return reader.answer, thinking, [(call.name, call.arguments) for call in reader.calls]


def test_thinking_is_no_part_of_the_answer() -> None:
    for begin, end in THINKING_MARKS.items():
        assert _read(f"{begin}\nplan\n{end}\n\nThe answer.") == ("The answer.", "\nplan\n", []), begin
    for end in LONE_ENDS:
        assert _read(f"plan\n{end}\n\nThe answer.") == ("The answer.", "plan\n", []), end
    assert _read("<think>never ended") == ("", "never ended", [])
    assert _read("<THINK>x</Think>The answer.") == ("The answer.", "x", [])
    assert _read("One. <think>x</think>Two.") == ("One. Two.", "x", [])


def test_a_mark_in_code_is_text() -> None:
    for text in ("Write `<think>` first.", "```\n<think>x</think>\n<tool_call>\n```", "a < b, [1], and <b>bold</b>"):
        assert _read(text) == (text, "", []), text


def test_a_call_written_by_a_known_template_is_one() -> None:
    for name, text in SPELLED.items():
        assert _read(text) == ("", "", [("order_query", {"order_id": "OD-1"})]), name
        assert _read(f"Let me look. {text}")[2] == [("order_query", {"order_id": "OD-1"})], name


def test_what_only_looks_like_a_call_stays_text() -> None:
    for text in (
        "<tool_call>not JSON at all, is it</tool_call>",
        '<tool_call>{"name": "no_such_tool", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "order_query", "arguments": {"order_id": "OD',
        "<tool_call>",
        "<tool_call>order_query<arg_key>order_id</arg_key><arg_value>OD-1</tool_call>",
        "<tool_call>order_query<arg_key>a</arg_key>",
        "<function=order_query><parameter=order_id>OD-1</function>",
        "<function=order_query><parameter=order_id>OD-1</parameter><parameter=order_id>OD-2</parameter></function>",
        '<tool_call>{"name": "order_query", "arguments": {"order_id": "OD-1", "order_id": "OD-2"}}</tool_call>',
        '<tool_call>{"name": "order_query", "arguments": {"order_id": NaN}}</tool_call>',
    ):
        assert _read(text) == (text, "", []), text


def test_a_call_within_thinking_is_none() -> None:
    text = f"I could write {SPELLED['hermes']} or not.</think>The answer."
    assert _read(text)[0::2] == ("The answer.", [])
    assert _read(text, 3)[0::2] == ("The answer.", [])
    mention = f"The tag <tool_call> begins one.</think>{SPELLED['hermes']}"
    assert _read(mention)[0::2] == ("", [("order_query", {"order_id": "OD-1"})])


def test_a_call_after_one_that_only_looked_like_it_is_made() -> None:
    for before in ("The tag <tool_call> begins one. ", "<tool_call>no JSON</tool_call>"):
        answer, _, calls = _read(before + SPELLED["hermes"])
        assert (answer, calls) == (before, [("order_query", {"order_id": "OD-1"})]), before


def test_values_of_a_written_call_are_what_stands_there() -> None:
    block = "<tool_call>order_query<arg_key>a</arg_key><arg_value>{value}</arg_value></tool_call>"
    for value, meant in {
        "5": 5,
        " plain words ": "plain words",
        "```json\n{}\n```": "```json\n{}\n```",
        "null": None,
        '{"a": 1, "a": 2}': '{"a": 1, "a": 2}',
    }.items():
        assert _read(block.replace("{value}", value))[2] == [("order_query", {"a": meant})], value
    in_json = '<tool_call>{"name": "order_query", "arguments": {"a": "<arg_key>"}}</tool_call>'
    assert _read(in_json)[2] == [("order_query", {"a": "<arg_key>"})]


def test_code_fences_are_counted_through_pieces_and_thinking() -> None:
    for text in ("``" + "`\n<think>x</think>\n```", "```\n<tool_call>a\n```\n`<think>`", "``` ``<think>"):
        for size in (1, 2, 5, 50):
            assert _read(text, size)[0] == text, (text, size)
    assert _read("```\ncode\n```\n<think>x</think>y", 4)[:2] == ("```\ncode\n```\ny", "x")


def test_more_broken_marks_than_a_reply_of_use_has_are_text() -> None:
    text = "<tool_call>x</tool_call>" * (MAX_BROKEN + 1) + SPELLED["hermes"]
    assert _read(text) == (text, "", [])


def test_a_model_known_to_end_thinking_it_never_began_shows_nothing_before_that() -> None:
    reader = TextReader(lambda _: False, holds_text=True)
    assert reader.feed("a secret plan") == []
    parts = reader.feed("</think>Hello")
    assert [part for part in parts if part.kind != "thinking"][-2:] == [Part("retract"), Part("text", "Hello")]
    assert _read("no thinking at all", 3, holds=True) == ("no thinking at all", "", [])


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.one_of(st.sampled_from(MARKS), st.text("ab<>[]|`{}\n ", max_size=6), st.just(CALL))), st.integers(1, 9)
)
def test_a_text_is_read_the_same_in_any_pieces(words: list[str], size: int) -> None:
    text = "".join(words)
    assert _read(text, size) == _read(text)
    assert _read(text, size, holds=True)[0] == _read(text)[0]
