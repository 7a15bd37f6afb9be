"""Conversion between LangChain's messages and those that memory keeps."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, cast

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    ToolMessage,
    message_to_dict,
    messages_from_dict,
)
from langchain_core.messages.tool import invalid_tool_call, tool_call
from langchain_core.messages.utils import message_chunk_to_message

from serve_app.llm.message_keys import ESTIMATED, MODEL, REASONING
from serve_app.values import Exchange, Message, ToolRequest, TurnRequest, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.messages import InvalidToolCall, ToolCall

    from serve_app.runs.run import Run
    from serve_app.values import ChatRequest

_MALFORMED = "serve_app_malformed"

KEPT_TOOL_CHARACTERS = 1_000
"""Of a tool's output in memory: the answer already holds what mattered of it."""


KEPT_REASONING_CHARACTERS = 8_000
"""Of the thinking before a call, for providers that want it again: they look whether it is there, not at its end."""


def earlier(request: ChatRequest, exchanges: list[Exchange]) -> list[BaseMessage]:
    """What was said before the turn, as the model reads it: what memory has of it, or the request."""
    given = request.history if isinstance(request, TurnRequest) else ()
    remembered = [message for exchange in exchanges for message in exchange.messages]
    return [_to_langchain(message) for message in (*given, *remembered)]


def kept(messages: list[BaseMessage]) -> list[Message]:
    """One turn's messages, as memory keeps them."""
    return [_from_langchain(message) for message in messages]


def exchange(run: Run, messages: Sequence[Message]) -> str:
    """What memory keeps of a run's turn: nothing of one without a conversation."""
    if not run.context.session_id:
        return ""
    whole = Exchange(run_id=run.context.run_id, at=time.time(), user_id=run.request.user_id, messages=list(messages))
    return whole.model_dump_json()


def requests_of(reply: AIMessage) -> list[ToolRequest]:
    """The tool calls of a model step; one whose arguments are not JSON asks with none, and so learns what is wrong."""
    calls = [
        *((call["id"], call["name"], call["args"]) for call in reply.tool_calls),
        *((call["id"], call["name"] or "", {}) for call in reply.invalid_tool_calls),
    ]
    return [
        ToolRequest(id=given_id or f"call_{index}", name=name, arguments=arguments)
        for index, (given_id, name, arguments) in enumerate(calls)
    ]


def usage_of(reply: AIMessage) -> Usage:
    """The tokens of one model call."""
    counted = reply.usage_metadata
    if counted is None:
        return Usage()
    return Usage(
        input_tokens=counted["input_tokens"],
        output_tokens=counted["output_tokens"],
        estimated=bool(reply.response_metadata.get(ESTIMATED)),
    )


def with_calls(reply: AIMessage, requests: list[ToolRequest]) -> AIMessage:
    """The reply, each of its calls under the id that its result will carry; it says itself which were malformed.

    The provider's own message goes back to it otherwise unchanged: some sign their reasoning.
    """
    calls = [{"id": each.id, "name": each.name, "args": each.arguments, "type": "tool_call"} for each in requests]
    malformed = list(range(len(reply.tool_calls), len(requests)))
    metadata = {**reply.response_metadata, **({_MALFORMED: malformed} if malformed else {})}
    return reply.model_copy(update={"tool_calls": calls, "invalid_tool_calls": [], "response_metadata": metadata})


def malformed(reply: AIMessage) -> frozenset[int]:
    """The places of the calls in a reply of `with_calls` whose arguments were not JSON."""
    return frozenset(reply.response_metadata.get(_MALFORMED, ()))


def streamed(whole: AIMessage) -> AIMessage:
    """The reply that a stream has brought; LangChain takes arguments that break off for all of them, this does not."""
    if not isinstance(whole, AIMessageChunk):  # of a model that does not stream
        return whole
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for chunk in whole.tool_call_chunks:
        name, written, given_id = chunk["name"], chunk["args"], chunk["id"]
        arguments = _object(written or "{}")
        if arguments is None:
            invalid.append(invalid_tool_call(name=name, args=written, id=given_id))
        else:
            calls.append(tool_call(name=name or "", args=arguments, id=given_id))
    reply = cast("AIMessage", message_chunk_to_message(whole))
    return reply.model_copy(update={"tool_calls": calls, "invalid_tool_calls": invalid})


def _object(written: str) -> dict[str, Any] | None:
    """The JSON object that a model has written; line breaks in its texts are let pass."""
    try:
        read = json.loads(written, strict=False)
    except ValueError:
        return None
    return read if isinstance(read, dict) else None


def logged(reply: AIMessage) -> dict[str, Any]:
    """The reply as JSON, with all that its provider wants to read again."""
    return message_to_dict(reply)


def unlogged(reply: dict[str, Any]) -> AIMessage:
    """The reply that `logged` wrote."""
    return cast("AIMessage", messages_from_dict([reply])[0])


def _to_langchain(message: Message) -> BaseMessage:
    if message.role == "user":
        return HumanMessage(message.content)
    if message.role == "tool":
        return ToolMessage(message.content, tool_call_id=message.tool_call_id or "")
    calls = [{"id": call.id, "name": call.name, "args": call.arguments} for call in message.tool_calls]
    if not message.reasoning:
        return AIMessage(message.content, tool_calls=calls)
    return AIMessage(
        message.content,
        tool_calls=calls,
        additional_kwargs={REASONING: message.reasoning},
        response_metadata={MODEL: message.model},
    )


def _from_langchain(message: BaseMessage) -> Message:
    if isinstance(message, AIMessage):
        requests = requests_of(message)
        reasoning = message.additional_kwargs.get(REASONING) if requests else None
        thought = {"reasoning": reasoning[:KEPT_REASONING_CHARACTERS]} if isinstance(reasoning, str) else {}
        if thought:
            thought["model"] = str(message.response_metadata.get(MODEL, ""))
        return Message(role="assistant", content=message.text, tool_calls=requests, **thought)
    if isinstance(message, ToolMessage):
        content = message.text[:KEPT_TOOL_CHARACTERS]
        return Message(role="tool", content=content, tool_call_id=message.tool_call_id)
    return Message(role="user", content=message.text)
