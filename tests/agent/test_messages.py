"""Messages come back unchanged from the event log and from memory."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from serve_app.agent.messages import (
    deserialize_reply,
    serialize_reply,
    to_langchain,
    to_memory,
    tool_requests,
    with_calls,
)
from serve_app.memory import MAX_TOOL_CHARACTERS, repair_messages
from serve_app.values import Exchange, ToolRequest

CALL = {"id": "c0", "name": "echo", "args": {"text": "中", "n": [1, None, 2.5]}, "type": "tool_call"}
THINKING = {"type": "thinking", "thinking": "Hm.", "signature": "c2lnbmVk"}
TEXT = {"type": "text", "text": "Wait."}
BLOCK = {"type": "tool_use", "id": "c0", "name": "echo", "input": {"text": "中"}}
FUNCTION = {"id": "c0", "type": "function", "function": {"name": "echo", "arguments": '{"text": "x"}'}}
USAGE: Any = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12, "input_token_details": {"cache_read": 4}}
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def _through_the_log(reply: AIMessage) -> AIMessage:
    return deserialize_reply(json.loads(json.dumps(serialize_reply(reply), default=str)))


@pytest.mark.parametrize(
    "reply",
    [
        AIMessage("Let me look.", tool_calls=[CALL]),
        AIMessage("", tool_calls=[CALL], id="run-1", name="agent", usage_metadata=USAGE),
        AIMessage([THINKING, TEXT, BLOCK], tool_calls=[CALL]),
        AIMessage(["a", TEXT], tool_calls=[CALL]),
        AIMessage("", tool_calls=[CALL], additional_kwargs={"reasoning_content": "Hm.", "tool_calls": [FUNCTION]}),
        AIMessage("", tool_calls=[CALL], response_metadata={"model_name": "glm-4", "logprobs": None, "n": {"a": [1]}}),
    ],
    ids=["text", "usage", "signed thinking", "a list of text", "the provider's own fields", "metadata"],
)
def test_a_reply_comes_back_from_the_log_with_all_that_its_provider_put_in(reply: AIMessage) -> None:
    restored = with_calls(reply, tool_requests(reply))
    again = _through_the_log(restored)
    assert again == restored
    assert (again.content, again.additional_kwargs, again.usage_metadata) == (
        reply.content,
        reply.additional_kwargs,
        reply.usage_metadata,
    )
    assert tool_requests(again) == tool_requests(reply)


@given(st.text(), anything, st.dictionaries(st.text(), anything, max_size=3))
def test_whatever_json_is_in_a_reply_comes_back(text: str, extra: Any, arguments: dict[str, Any]) -> None:
    call: Any = {**CALL, "args": arguments}
    reply = AIMessage(text, tool_calls=[call], additional_kwargs={"extra": extra}, response_metadata={"extra": extra})
    assert _through_the_log(reply) == reply


def test_a_call_without_json_arguments_comes_back_as_one_without_arguments() -> None:
    reply = AIMessage(
        "", invalid_tool_calls=[{"id": None, "name": "echo", "args": "{", "error": "?", "type": "invalid_tool_call"}]
    )
    requests = tool_requests(reply)
    assert requests == [ToolRequest(id="call_0", name="echo", arguments={})]
    assert tool_requests(_through_the_log(with_calls(reply, requests))) == requests


def test_an_exchange_comes_back_from_memory_as_its_words_and_calls() -> None:
    long = "x" * (MAX_TOOL_CHARACTERS + 1)
    messages = [
        HumanMessage("?"),
        AIMessage([THINKING, TEXT], tool_calls=[CALL]),
        ToolMessage(long, tool_call_id="c0"),
        AIMessage("!"),
    ]
    exchange = Exchange(run_id="r", at=0, messages=to_memory(messages))
    assert repair_messages(exchange.messages) == (exchange.messages, 0)
    again = to_langchain(Exchange.model_validate_json(exchange.model_dump_json()).messages)
    assert [each.type for each in again] == ["human", "ai", "tool", "ai"]
    assert [each.text for each in again] == ["?", "Wait.", long[:-1], "!"]
    assert (again[1].tool_calls, again[2].tool_call_id) == ([CALL], "c0")
