"""Replies of any provider are checked, whole and streamed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.messages.utils import message_chunk_to_message
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from serve_app.llm.error_translation import ModelIncomplete, ModelUnreadable
from serve_app.llm.guarded import GuardedModel
from serve_app.llm.provider_messages import CUT_CALLS, ESTIMATED, FINISH, REASONING, RETRACTED, THINKING, TRUNCATED
from serve_app.llm.reply_reader import UNKNOWN_TOOL, ReplyReader, read_finish_reason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

USAGE = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}
SOME = {"type": "object", "properties": {"amount": {"type": "number"}}}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": parameters}}
    for name, parameters in {"order_query": SOME, "pay": SOME, "wipe": SOME, "status": {}}.items()
]


class Provider(BaseChatModel):
    """A provider of another package: it gives one reply, in pieces of `size` characters where it streams."""

    reply: Any
    size: int = 3

    @property
    def _llm_type(self) -> str:
        return "provider"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=tools, **kwargs)

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.reply)])

    async def _astream(self, messages: list[BaseMessage], *_: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        text = self.reply.content
        for place in range(0, len(text), self.size):
            yield ChatGenerationChunk(message=AIMessageChunk(text[place : place + self.size]))
        calls = [(call["name"], json.dumps(call["args"]) if call["args"] else "") for call in self.reply.tool_calls]
        calls += [(call["name"], call["args"]) for call in self.reply.invalid_tool_calls]
        for place, (name, args) in enumerate(calls):
            for called, piece in ((name, args[: self.size]), (None, args[self.size :])):
                chunk = tool_call_chunk(name=called, args=piece, index=place)
                yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[chunk]))
        rest = {
            "additional_kwargs": self.reply.additional_kwargs,
            "response_metadata": self.reply.response_metadata,
            "usage_metadata": self.reply.usage_metadata,
        }
        yield ChatGenerationChunk(message=AIMessageChunk(content="", **rest))


async def _both(reply: AIMessage, size: int = 3, *more: BaseMessage) -> tuple[AIMessage, AIMessage]:
    """The reply as it comes whole, and as it comes in a stream."""
    model = GuardedModel(inner=Provider(reply=reply, size=size), timeout_s=5).bind_tools(TOOLS)
    messages = [HumanMessage("hello"), *more]
    whole = await model.ainvoke(messages)
    streamed: Any = None
    async for chunk in model.astream(messages):
        if streamed is not None and chunk.response_metadata.get(RETRACTED):
            streamed = streamed.model_copy(update={"content": ""})
        streamed = chunk if streamed is None else streamed + chunk
    return whole, message_chunk_to_message(streamed)  # type: ignore[return-value]


def _meaning(reply: AIMessage) -> Any:
    calls = [(call["name"], json.dumps(call["args"], sort_keys=True)) for call in reply.tool_calls]
    invalid = [(call["name"], call["args"]) for call in reply.invalid_tool_calls]
    return (
        reply.text,
        calls,
        invalid,
        read_finish_reason(reply),
        reply.response_metadata.get(CUT_CALLS),
        reply.usage_metadata,
    )


async def _read(reply: AIMessage, *more: BaseMessage) -> AIMessage:
    whole, streamed = await _both(reply, 3, *more)
    assert _meaning(whole) == _meaning(streamed)
    return whole


def _calling(name: str, args: dict[str, Any], finish: str = "tool_calls", **more: Any) -> AIMessage:
    call = {"id": "x" * 50, "name": name, "args": args}
    return AIMessage("", tool_calls=[call], response_metadata={"finish_reason": finish}, usage_metadata=USAGE, **more)


async def test_calls_of_a_reply_that_did_not_end_well_are_not_made() -> None:
    for finish, more in (
        ("length", "length"),
        ("MAX_TOKENS", "length"),
        ("sensitive", "content_filter"),
        ("odd", "stop"),
    ):
        reply = await _read(_calling("wipe", {}, finish))
        assert (reply.tool_calls, reply.response_metadata[CUT_CALLS]) == ([], 1), finish
        assert reply.response_metadata[FINISH] == more


async def test_a_reply_that_the_provider_says_broke_off_is_no_reply() -> None:
    for finish in ("error", "network_error", "insufficient_system_resource", "MALFORMED_FUNCTION_CALL"):
        broken = AIMessage("half of", response_metadata={"finish_reason": finish})
        model = GuardedModel(inner=Provider(reply=broken), timeout_s=5)
        with pytest.raises(ModelIncomplete):
            await model.ainvoke("hello")
        with pytest.raises(ModelIncomplete):
            [each async for each in model.astream("hello")]


async def test_text_that_was_cut_off_says_so() -> None:
    reply = await _read(AIMessage("The three steps are", response_metadata={"finish_reason": "length"}))
    assert (reply.text, reply.response_metadata[FINISH]) == ("The three steps are", "length")
    assert reply.response_metadata[TRUNCATED] is True


async def test_a_refusal_is_the_text_of_the_reply() -> None:
    reply = await _read(AIMessage("", additional_kwargs={"refusal": "I cannot help with that."}))
    assert (reply.text, reply.response_metadata[FINISH]) == ("I cannot help with that.", "content_filter")
    assert TRUNCATED not in reply.response_metadata


async def test_names_are_mended_to_tools_that_exist_and_are_legal_otherwise() -> None:
    for name, meant in {
        "order_query": "order_query",
        "functions.order_query": "order_query",
        "order_query ": "order_query",
        "Order Query": "order_query",
        "PAY": "pay",
        "": UNKNOWN_TOOL,
    }.items():
        assert [call["name"] for call in (await _read(_calling(name, {}))).tool_calls] == [meant], name
    for name in ("查询订单", "x" * 100, "a b/c"):
        (call,) = (await _read(_calling(name, {}))).tool_calls
        assert call["name"] not in {"order_query", "pay", "wipe"}
        assert call["name"].isascii()
        assert 0 < len(call["name"]) <= 64


async def test_ids_are_the_service_s_own() -> None:
    calls = [{"id": "same", "name": "pay", "args": {"n": place}} for place in range(3)]
    ids = [call["id"] for call in (await _read(AIMessage("", tool_calls=calls))).tool_calls]
    assert len({*ids, "same"}) == 4
    assert all(len(each or "") == 9 for each in ids)


async def test_arguments_that_break_off_are_never_completed() -> None:
    call = {"id": "a", "name": "wipe", "args": '{"limit": 1', "error": "?", "type": "invalid_tool_call"}
    reply = await _read(AIMessage("", invalid_tool_calls=[call]))
    assert reply.tool_calls == []
    assert len(reply.invalid_tool_calls) == 1


async def test_a_call_without_arguments_is_made_only_where_they_cannot_be_missing() -> None:
    for finish, name, made in (
        ("tool_calls", "wipe", [{}]),
        ("", "wipe", []),  # may have been cut off before its arguments
        ("", "status", [{}]),  # takes none
        ("", "functions.status", [{}]),
    ):
        reply = await _read(_calling(name, {}, finish))
        assert [call["args"] for call in reply.tool_calls] == made, (finish, name)
        assert len(reply.invalid_tool_calls) == 1 - len(made)


async def test_arguments_that_json_cannot_say_are_not_made_into_others() -> None:
    block = '<tool_call>{"name": "pay", "arguments": {"amount": 1e999}}</tool_call>'
    for reply in (*await _both(AIMessage(block)), *await _both(_calling("pay", {"amount": float("inf")}))):
        assert (reply.tool_calls, len(reply.invalid_tool_calls)) == ([], 1)


async def test_a_call_that_comes_as_one_and_as_text_is_made_once() -> None:
    block = '<tool_call>{"name": "pay", "arguments": {"amount": 5}}</tool_call>'
    call = {"id": "a", "name": "pay", "args": {"amount": 5}}
    reply = await _read(AIMessage(block, tool_calls=[call], response_metadata={"finish_reason": "tool_calls"}))
    assert [call["args"] for call in reply.tool_calls] == [{"amount": 5}]


async def test_what_a_provider_says_of_each_piece_is_never_added_up() -> None:
    class Odd(Provider):
        async def _astream(self, *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
            for place, text in enumerate(("four ", "words ", "are ", "here")):
                more = {"logprob": place / 3, "created": place, "model_name": "m" if place else None, "sure": {place}}
                yield ChatGenerationChunk(message=AIMessageChunk(text, response_metadata=more))

    whole: Any = None
    async for chunk in GuardedModel(inner=Odd(reply=None), timeout_s=5).astream("hello"):
        whole = chunk if whole is None else whole + chunk
    assert whole.text == "four words are here"
    assert whole.response_metadata["logprob"] == 1.0
    assert whole.response_metadata["model_name"] == "m"


def test_pieces_of_a_stream_are_put_together_by_their_index_unless_their_ids_differ() -> None:
    for pieces, made in (
        ([("pay", '{"amount"', 0, "a"), (None, ": 5}", 0, None)], [("pay", {"amount": 5})]),
        ([("pay", '{"amount"', 0, "a"), ("pay", ": 5}", 0, "a")], [("pay", {"amount": 5})]),
        ([("pay", "{}", 0, "a"), ("wipe", "{}", 0, "b")], [("pay", {}), ("wipe", {})]),
        ([("pay", '{"amount"', None, "a"), (None, ": 5}", None, None)], []),
        ([("pay", '{"amount"', 0, "a"), (None, ": 5}", 0, "b")], []),
    ):
        reader = ReplyReader((), frozenset({"pay", "wipe"}))
        for name, args, index, given_id in pieces:
            chunk = tool_call_chunk(name=name, args=args, index=index, id=given_id)
            reader.feed(AIMessageChunk(content="", tool_call_chunks=[chunk]))
        calls = message_chunk_to_message(reader.finish()).tool_calls  # type: ignore[attr-defined]
        assert [(call["name"], call["args"]) for call in calls] == made, pieces


async def test_a_call_written_as_text_is_made_unless_it_is_quoted() -> None:
    block = '<tool_call>{"name": "pay", "arguments": {"amount": 5}}</tool_call>'
    (call,) = (await _read(AIMessage(block))).tool_calls
    assert (call["name"], call["args"]) == ("pay", {"amount": 5})
    reply = await _read(AIMessage(block), HumanMessage(f"Say after me: {block}"))
    assert (reply.tool_calls, reply.text) == ([], block)


async def test_thinking_is_apart_from_the_answer() -> None:
    for text in ("<think>plan</think>The answer.", "plan</think>The answer."):
        reply = await _read(AIMessage(text))
        assert (reply.text, reply.additional_kwargs[THINKING]) == ("The answer.", "plan")
    assert (await _read(AIMessage("A <tool_call> begins</think>"))).text == ""
    fielded = await _read(AIMessage("The answer.", additional_kwargs={REASONING: "plan \ud83d"}))
    assert (fielded.text, fielded.additional_kwargs[REASONING]) == ("The answer.", "plan \ufffd")


async def test_tokens_that_nobody_counted_are_estimated_and_say_so() -> None:
    reply = await _read(AIMessage("four words are here"))
    assert reply.usage_metadata == {"input_tokens": 2, "output_tokens": 5, "total_tokens": 7}
    assert reply.response_metadata[ESTIMATED] is True
    counted = await _read(AIMessage("four words are here", usage_metadata=USAGE))
    assert (counted.usage_metadata, counted.response_metadata.get(ESTIMATED)) == (USAGE, None)
    half: Any = {"input_tokens": 0, "output_tokens": 3, "total_tokens": 3}
    reply = await _read(AIMessage("four words are here", usage_metadata=half))
    assert reply.usage_metadata == {"input_tokens": 2, "output_tokens": 3, "total_tokens": 5}
    assert reply.response_metadata[ESTIMATED] is True


async def test_one_that_wants_something_is_given_no_empty_reply() -> None:
    model = GuardedModel(inner=Provider(reply=AIMessage("<think>only this</think>")), timeout_s=5)
    assert (await model.ainvoke("hello")).text == ""
    with pytest.raises(ModelUnreadable):
        await model.ainvoke("hello", nonempty=True)
    with pytest.raises(ModelUnreadable):
        [each async for each in model.astream("hello", nonempty=True)]


odd_text = st.text(st.characters(exclude_categories=()), max_size=30) | st.sampled_from(
    ["<think>", "</think>", "<tool_call>", "</tool_call>", "`", '{"name": "pay", "arguments": {}}']
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(odd_text, max_size=5), st.sampled_from(["stop", "length", "tool_calls", ""]), st.integers(1, 7), st.data()
)
async def test_a_reply_means_the_same_whole_and_streamed(
    words: list[str], finish: str, size: int, data: st.DataObject
) -> None:
    numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    args = st.dictionaries(odd_text, numbers | odd_text, max_size=2)
    calls = data.draw(st.lists(st.fixed_dictionaries({"id": odd_text, "name": odd_text, "args": args}), max_size=2))
    reply = AIMessage("".join(words), tool_calls=calls, response_metadata={"finish_reason": finish})
    whole, streamed = await _both(reply, size)
    assert _meaning(whole)[:5] == _meaning(streamed)[:5]
    json.dumps(_meaning(whole), ensure_ascii=False).encode()


def test_a_chunk_of_plain_text_is_passed_on_as_it_is() -> None:
    reader = ReplyReader([], frozenset())
    plain = AIMessageChunk("Hello ")
    thinking = AIMessageChunk("", additional_kwargs={REASONING: "hm"})
    with_thinking = AIMessageChunk("there", additional_kwargs={REASONING: "hm"})
    assert reader.feed(plain) is plain
    assert reader.feed(with_thinking) is with_thinking
    assert reader.feed(thinking) == thinking
    with_end = AIMessageChunk("!", response_metadata={"finish_reason": "stop"})
    assert reader.feed(with_end) == AIMessageChunk("!")
    assert reader.feed(AIMessageChunk("<think>hm</think>")).text == ""
