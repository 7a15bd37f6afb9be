"""Cache keys of questions: equal in the same context, different in another one."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from serve_app.agent.answer_cache import hashable_messages, request_options
from serve_app.values import ChatRequest

CALLED = {"name": "echo", "args": {"a": 1}}


def turn(question: str = "one", call_id: str = "c1", result_of: str = "", **other: Any) -> list[BaseMessage]:
    call = {**CALLED, **other, "id": call_id, "type": "tool_call"}
    return [
        SystemMessage("Be kind."),
        HumanMessage(question),
        AIMessage("", tool_calls=[call]),
        ToolMessage("1", tool_call_id=result_of or call_id),
        AIMessage("It is one."),
    ]


def test_the_names_that_providers_give_to_calls_do_not_count() -> None:
    assert hashable_messages(turn()) == hashable_messages(turn(call_id="call_9"))


def test_all_else_that_the_model_reads_does() -> None:
    others = {
        "nothing": [],
        "another prompt": [SystemMessage("Be brief."), *turn()[1:]],
        "another question": turn("two"),
        "twice": [*turn(), *turn()[1:]],
        "another tool": turn(name="save"),
        "another argument": turn(args={"a": 2}),
        "a result of another call": turn(result_of="c0"),
        "another result": [*turn()[:3], ToolMessage("2", tool_call_id="c1"), AIMessage("It is one.")],
        "another answer": [*turn()[:-1], AIMessage("It is 1.")],
        "by another role": [*turn()[:-1], HumanMessage("It is one.")],
    }
    hashes = [hashable_messages(turn()), *(hashable_messages(each) for each in others.values())]
    assert all(one != other for place, one in enumerate(hashes) for other in hashes[:place])


def test_which_result_is_which_calls_counts() -> None:
    calls = [{**CALLED, "id": each, "type": "tool_call"} for each in ("c1", "c2")]
    results = [ToolMessage("1", tool_call_id="c1"), ToolMessage("2", tool_call_id="c2")]
    swapped = [ToolMessage("1", tool_call_id="c2"), ToolMessage("2", tool_call_id="c1")]
    asking = AIMessage("", tool_calls=calls)
    assert hashable_messages([asking, *results]) != hashable_messages([asking, *swapped])


def test_who_asks_and_how_the_answer_is_sent_says_nothing_of_it() -> None:
    one = ChatRequest(user_input="a", session_id="s", user_id="u", stream=True)
    assert request_options(one) == request_options(ChatRequest(user_input="b", session_id="t")) == {}


def test_whatever_else_a_request_says_is_a_term_of_it() -> None:
    class Warmer(ChatRequest):
        temperature: float

    assert request_options(Warmer(user_input="a", session_id="s", temperature=1)) == {"temperature": 1}
