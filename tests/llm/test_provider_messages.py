"""A conversation is made valid for every provider."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from serve_app.llm.provider_messages import (
    MODEL,
    NO_REASONING,
    REASONING,
    THINKING,
    normalize_messages,
    strip_tool_messages,
)
from serve_app.values import NO_RESULT

odd = st.text(st.characters(exclude_categories=()), max_size=50)
values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | odd, lambda inner: st.lists(inner, max_size=3)
)
calls = st.builds(
    lambda call_id, name, args: {"id": call_id, "name": name, "args": args},
    st.sampled_from(["a", "", "b" * 60, "c d", "a:1"]),
    odd,
    st.dictionaries(odd, values, max_size=3),
)
messages = st.one_of(
    st.builds(HumanMessage, odd),
    st.builds(lambda text, made: AIMessage(text, tool_calls=made), odd, st.lists(calls, max_size=3)),
    st.builds(lambda text, call_id: ToolMessage(text, tool_call_id=call_id), odd, st.sampled_from(["a", "", "x"])),
)


def _called(*ids: str, **more: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"id": each, "name": "look", "args": {}} for each in ids], **more)


def _refusals(sent: list[BaseMessage]) -> list[str]:
    """What a strict provider would refuse."""
    bad: list[str] = []
    seen: set[str] = set()
    waiting: list[str] = []
    for message in sent:
        message.text.encode()
        if isinstance(message, ToolMessage):
            bad += [] if message.tool_call_id in waiting else ["a result without its call"]
            waiting = [each for each in waiting if each != message.tool_call_id]
            continue
        bad += ["a call without its result"] if waiting else []
        if isinstance(message, AIMessage):
            bad += ["nothing said"] if not message.text.strip() and not message.tool_calls else []
            for call in message.tool_calls:
                bad += (
                    ["an id"]
                    if call["id"] in seen or not re.fullmatch(r"[\w-]{1,40}", call["id"] or "", re.ASCII)
                    else []
                )
                bad += [] if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", call["name"]) else ["a name"]
                json.dumps(call["args"], allow_nan=False, ensure_ascii=False).encode()
                seen.add(call["id"] or "")
                waiting.append(call["id"] or "")
    return bad + (["a call without its result"] if waiting else [])


@settings(deadline=None, max_examples=60)
@given(st.lists(messages, max_size=8))
def test_a_strict_provider_takes_whatever_a_session_holds(held: list[BaseMessage]) -> None:
    sent = normalize_messages(held)
    assert _refusals(sent) == []
    assert normalize_messages(sent) == sent
    assert [each.text for each in strip_tool_messages(sent) if isinstance(each, HumanMessage)] == [
        each.text for each in sent if isinstance(each, HumanMessage)
    ]


def test_a_valid_conversation_is_sent_as_it_is() -> None:
    held = [
        SystemMessage("s"),
        HumanMessage("q"),
        _called("a"),
        ToolMessage("r", tool_call_id="a", name="look"),
        AIMessage("x"),
    ]
    sent = normalize_messages(held)
    assert all(one is other for one, other in zip(held, sent, strict=True))


def test_ids_that_come_again_in_a_later_step_are_made_anew_with_their_results() -> None:
    held = [_called("call_0"), ToolMessage("one", tool_call_id="call_0"), _called("call_0", "call_0")]
    held += [ToolMessage("two", tool_call_id="call_0"), ToolMessage("three", tool_call_id="call_0")]
    sent = normalize_messages(held)
    assert _refusals(sent) == []
    assert [each.text for each in sent if isinstance(each, ToolMessage)] == ["one", "two", "three"]


def test_a_call_without_a_result_gets_one_that_says_so() -> None:
    sent = normalize_messages([_called("a", "b"), ToolMessage("r", tool_call_id="b"), HumanMessage("again")])
    assert [each.text for each in sent] == ["", "r", NO_RESULT, "again"]


def test_thinking_goes_back_to_the_model_that_thought_it_and_to_no_other() -> None:
    thought = _called("a", additional_kwargs={REASONING: "hm", THINKING: "x"}, response_metadata={MODEL: "openai:one"})
    held = [
        HumanMessage("q"),
        thought,
        ToolMessage("r", tool_call_id="a"),
        _called("b"),
        ToolMessage("r", tool_call_id="b"),
    ]
    own = [each for each in normalize_messages(held, "openai:one") if isinstance(each, AIMessage)]
    assert [each.additional_kwargs for each in own] == [{REASONING: "hm"}, {REASONING: NO_REASONING}]
    others = [each for each in normalize_messages(held, "openai:two") if isinstance(each, AIMessage)]
    assert [each.additional_kwargs for each in others] == [{}, {}]


def test_an_answer_is_sent_without_the_thinking_before_it() -> None:
    answer = AIMessage("x", additional_kwargs={REASONING: "hm"}, response_metadata={MODEL: "m"})
    assert normalize_messages([answer], "m")[0].additional_kwargs == {}


def test_a_model_without_tools_reads_results_as_data() -> None:
    held = [SystemMessage("s"), HumanMessage("q"), _called("a"), ToolMessage("shipped", tool_call_id="a", name="look")]
    system, question = strip_tool_messages(held)
    assert "look: shipped" in system.text
    assert question.text == "q"
