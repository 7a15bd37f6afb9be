"""Writes a conversation as the messages of a chat completions request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.block_translators.openai import convert_to_openai_data_block
from langchain_core.messages.content import is_data_content_block

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve_app.llm.openai_compatible.profile import Profile

REASONING = "reasoning_content"
_SHOWN = frozenset({"text", "image_url", "input_audio", "file"})


def messages_of(messages: Sequence[BaseMessage], profile: Profile) -> list[dict[str, Any]]:
    """The messages in the endpoint's form.

    Raises:
        ValueError: a message is of a kind that the protocol does not have.
    """
    return [_message(message, profile) for message in messages]


def body_of(fields: dict[str, Any]) -> bytes:
    """The request's body; a text that is not Unicode loses only what is wrong in it."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _message(message: BaseMessage, profile: Profile) -> dict[str, Any]:
    if isinstance(message, HumanMessage):
        return {"role": "user", "content": _content(message)}
    if isinstance(message, SystemMessage):
        return {"role": "system", "content": _content(message)}
    if isinstance(message, ToolMessage):
        return {"role": "tool", "content": _content(message), "tool_call_id": message.tool_call_id}
    if isinstance(message, AIMessage):
        return _reply(message, profile)
    if isinstance(message, ChatMessage):
        return {"role": message.role, "content": _content(message)}
    raise ValueError(f"a message of the type {message.type} cannot be sent")


def _reply(message: AIMessage, profile: Profile) -> dict[str, Any]:
    written: dict[str, Any] = {"role": "assistant", "content": str(message.text)}
    calls: list[dict[str, Any]] = [
        {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": _json(call["args"])}}
        for call in message.tool_calls
    ]
    calls += [
        {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": "{}"}}
        for call in message.invalid_tool_calls
    ]
    if calls:
        written["tool_calls"] = calls
        if not message.text and profile.empty_content == "null":
            written["content"] = None
        if reasoning := message.additional_kwargs.get(REASONING):
            written[REASONING] = reasoning
    return written


def _content(message: BaseMessage) -> str | list[dict[str, Any]]:
    if isinstance(message.content, str):
        return message.content
    parts: list[dict[str, Any]] = []
    for block in message.content:
        if isinstance(block, str):
            parts.append({"type": "text", "text": block})
        elif block.get("type") == "text":
            parts.append({"type": "text", "text": block["text"]})
        elif is_data_content_block(block):
            parts.append(convert_to_openai_data_block(block))
        elif block.get("type") == "image":  # Anthropic's form
            parts.append({"type": "image_url", "image_url": {"url": _data_url(block.get("source") or {})}})
        elif block.get("type") in _SHOWN:
            parts.append(block)
    if all(each["type"] == "text" for each in parts):
        return "".join(each["text"] for each in parts)
    return parts


def _data_url(source: dict[str, Any]) -> str:
    return str(source.get("url") or f"data:{source.get('media_type')};base64,{source.get('data')}")


def _json(arguments: Any) -> str:
    try:
        return json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps({name: str(value) for name, value in dict(arguments).items()}, ensure_ascii=False)
