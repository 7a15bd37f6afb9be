"""Messages, converted between LangChain, the memory and the event log."""

from __future__ import annotations

import json
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

from serve_app.llm.provider_messages import ESTIMATED, MODEL, REASONING
from serve_app.memory import MAX_REASONING_CHARACTERS, MAX_TOOL_CHARACTERS
from serve_app.values import Message, ToolRequest, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from langchain_core.messages import InvalidToolCall, ToolCall

_MALFORMED = "serve_app_malformed"
"""In a reply's metadata: the places of the calls whose arguments were no JSON."""


def to_langchain(messages: Iterable[Message]) -> list[BaseMessage]:
    """Convert messages of a conversation to LangChain's."""
    return [_to_langchain(message) for message in messages]


def to_memory(messages: Iterable[BaseMessage]) -> list[Message]:
    """Convert LangChain's messages of a turn to those that memory keeps."""
    return [_to_memory(message) for message in messages]


def tool_requests(reply: AIMessage) -> list[ToolRequest]:
    """Return the tool calls of a reply.

    A call whose arguments are not JSON gets none; its result tells the model what is wrong.
    """
    calls = [
        *((call["id"], call["name"], call["args"]) for call in reply.tool_calls),
        *((call["id"], call["name"] or "", {}) for call in reply.invalid_tool_calls),
    ]
    return [
        ToolRequest(id=given_id or f"call_{index}", name=name, arguments=arguments)
        for index, (given_id, name, arguments) in enumerate(calls)
    ]


def usage_of(reply: AIMessage) -> Usage:
    """Return the tokens of one model call."""
    counted = reply.usage_metadata
    if counted is None:
        return Usage()
    return Usage(
        input_tokens=counted["input_tokens"],
        output_tokens=counted["output_tokens"],
        estimated=bool(reply.response_metadata.get(ESTIMATED)),
    )


def with_calls(reply: AIMessage, requests: list[ToolRequest]) -> AIMessage:
    """Return the reply with `requests` as its calls, malformed ones marked.

    Each call has the id that its result will carry. Otherwise the provider's own message goes back to it unchanged:
    some sign their reasoning.
    """
    calls = [{"id": each.id, "name": each.name, "args": each.arguments, "type": "tool_call"} for each in requests]
    malformed = list(range(len(reply.tool_calls), len(requests)))
    metadata = {**reply.response_metadata, **({_MALFORMED: malformed} if malformed else {})}
    return reply.model_copy(update={"tool_calls": calls, "invalid_tool_calls": [], "response_metadata": metadata})


def malformed_calls(reply: AIMessage) -> frozenset[int]:
    """Return the places of the malformed calls in a reply of `with_calls`."""
    return frozenset(reply.response_metadata.get(_MALFORMED, ()))


def assemble_reply(whole: AIMessage) -> AIMessage:
    """Make the reply of a stream.

    Unlike LangChain, arguments that break off make a call invalid.
    """
    if not isinstance(whole, AIMessageChunk):  # of a model that does not stream
        return whole
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for chunk in whole.tool_call_chunks:
        name, written, given_id = chunk["name"], chunk["args"], chunk["id"]
        arguments = _parse_object(written or "{}")
        if arguments is None:
            invalid.append(invalid_tool_call(name=name, args=written, id=given_id))
        else:
            calls.append(tool_call(name=name or "", args=arguments, id=given_id))
    reply = cast("AIMessage", message_chunk_to_message(whole))
    return reply.model_copy(update={"tool_calls": calls, "invalid_tool_calls": invalid})


def _parse_object(written: str) -> dict[str, Any] | None:
    """Parse the JSON object of a model, with line breaks in strings.

    Returns None where it is no object.
    """
    try:
        read = json.loads(written, strict=False)
    except ValueError:
        return None
    return read if isinstance(read, dict) else None


def serialize_reply(reply: AIMessage) -> dict[str, Any]:
    """Return the reply as JSON, with all that its provider wants to read again."""
    return message_to_dict(reply)


def deserialize_reply(reply: dict[str, Any]) -> AIMessage:
    """Return the reply that `serialize_reply` has written."""
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


def _to_memory(message: BaseMessage) -> Message:
    if isinstance(message, AIMessage):
        requests = tool_requests(message)
        reasoning = message.additional_kwargs.get(REASONING) if requests else None
        thought = {"reasoning": reasoning[:MAX_REASONING_CHARACTERS]} if isinstance(reasoning, str) else {}
        if thought:
            thought["model"] = str(message.response_metadata.get(MODEL, ""))
        return Message(role="assistant", content=message.text, tool_calls=requests, **thought)
    if isinstance(message, ToolMessage):
        content = message.text[:MAX_TOOL_CHARACTERS]
        return Message(role="tool", content=content, tool_call_id=message.tool_call_id)
    return Message(role="user", content=message.text)
