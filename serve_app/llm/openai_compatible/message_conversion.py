"""Converts LangChain's messages to request bodies, and decoded replies to messages."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_openai_data_block,
    is_data_content_block,
)
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk

from serve_app.values.sanitize import sanitize_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serve_app.llm.openai_compatible.endpoint_profile import EndpointProfile
    from serve_app.llm.openai_compatible.reply_decoder import ProviderReply, ReplyDelta
    from serve_app.llm.openai_compatible.tool_calls import ProviderCall


NO_IMAGE = "[An image stood here; this model reads no images.]"
_NAME = re.compile(r"\A[A-Za-z0-9_-]{1,64}\Z")


def encode_body(body: Mapping[str, Any]) -> bytes:
    """Encode the body as valid JSON in UTF-8: no lone surrogates, no NaN."""
    return _write_json(body).encode()


def to_request_messages(messages: Sequence[BaseMessage], profile: EndpointProfile) -> list[dict[str, Any]]:
    """Convert messages to OpenAI's form, by the endpoint's profile."""
    return [_to_request_message(message, profile) for message in messages]


def _to_request_message(message: BaseMessage, profile: EndpointProfile) -> dict[str, Any]:
    if isinstance(message, AIMessage):
        return _to_assistant_message(message, profile)
    if isinstance(message, ToolMessage):
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": _plain(message.content)}
    if isinstance(message, SystemMessage):
        made: dict[str, Any] = {"role": profile.system_role, "content": _plain(message.content)}
    elif isinstance(message, HumanMessage):
        made = {"role": "user", "content": _content(message.content, profile)}
    elif isinstance(message, ChatMessage):
        made = {"role": message.role, "content": _content(message.content, profile)}
    else:
        raise TypeError(f"a message of type {message.type} cannot be sent")
    if message.name and _NAME.match(message.name):
        made["name"] = message.name
    return made


def _to_assistant_message(message: AIMessage, profile: EndpointProfile) -> dict[str, Any]:
    made: dict[str, Any] = {"role": "assistant", "content": _plain(message.content)}
    calls = [_call(each["id"], each["name"], _write_json(each["args"])) for each in message.tool_calls]
    calls += [
        _call(each["id"], each["name"] or "", _invalid_arguments(each["args"])) for each in message.invalid_tool_calls
    ]
    if not calls:
        return made
    made["tool_calls"] = calls
    if not made["content"]:
        if profile.empty_content == "null":
            made["content"] = None
        elif profile.empty_content == "omit":
            del made["content"]
    reasoning = message.additional_kwargs.get("reasoning_content")
    if isinstance(reasoning, str) and reasoning:
        made["reasoning_content"] = reasoning
    return made


def _call(label: str | None, name: str, arguments: str) -> dict[str, Any]:
    return {"id": label or "", "type": "function", "function": {"name": name, "arguments": arguments}}


def _invalid_arguments(raw: str | None) -> str:
    """Wrap invalid arguments into an object, so that the model sees them."""
    return _write_json({"unreadable_arguments": (raw or "")[:2000]})


def _plain(content: Any) -> str:
    """Return the text of a content, without other parts."""
    if isinstance(content, str):
        return content
    texts = (part if isinstance(part, str) else _text_of(part) for part in content)
    return "".join(text for text in texts if text)


def _text_of(part: Mapping[str, Any]) -> str | None:
    if part.get("type") in ("text", "refusal"):
        value = part.get("text") or part.get("refusal")
        return value if isinstance(value, str) else None
    if part.get("type") == "json":
        return json.dumps(part.get("json"), ensure_ascii=False, default=str)
    return None


def _content(content: Any, profile: EndpointProfile) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    return [made for part in content if (made := _part(part, profile)) is not None]


def _part(part: Any, profile: EndpointProfile) -> dict[str, Any] | None:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.get("type")
    if kind in ("thinking", "reasoning", "tool_use", "tool_call"):
        return None
    if kind in ("image_url", "image"):
        return _image(part) if profile.images else {"type": "text", "text": NO_IMAGE}
    if kind == "text":
        return {"type": "text", "text": part.get("text", "")}
    return convert_to_openai_data_block(part) if is_data_content_block(part) else dict(part)


def _image(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "image_url":
        url = part.get("image_url")
        return {"type": "image_url", "image_url": {"url": url} if isinstance(url, str) else url}
    if isinstance(source := part.get("source"), dict):  # Anthropic's shape
        data = f"data:{source.get('media_type')};base64,{source.get('data')}"
        return {"type": "image_url", "image_url": {"url": source.get("url") or data}}
    return convert_to_openai_data_block(part)


def _write_json(value: Mapping[str, Any]) -> str:
    with suppress(TypeError):  # a lone surrogate, a long number, or a key that is no text
        return orjson.dumps(value, default=_encodable).decode()
    try:
        return sanitize_text(json.dumps(value, ensure_ascii=False, allow_nan=False, default=_encodable))
    except ValueError:
        return sanitize_text(json.dumps(_finite(value), ensure_ascii=False, default=str))


def _encodable(value: Any) -> Any:
    """Return a form for JSON: the fields of a pydantic value, else text."""
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if callable(dump) and not isinstance(value, type) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value


def whole_message(reply: ProviderReply, model: str) -> AIMessage:
    """Return the message of a reply that was not streamed."""
    extra: dict[str, Any] = {"reasoning_content": reply.reasoning} if reply.reasoning else {}
    if reply.refusal:
        extra["refusal"] = reply.refusal
    return AIMessage(
        content=reply.text,
        additional_kwargs=extra,
        response_metadata=_metadata(reply, model),
        tool_calls=[
            tool_call(name=call.name, args=json.loads(call.arguments), id=call.id) for call in reply.calls if call.valid
        ],
        invalid_tool_calls=[
            invalid_tool_call(name=call.name, args=_arguments(call), id=call.id, error=None)
            for call in reply.calls
            if not call.valid
        ],
        usage_metadata=reply.usage,
    )


def text_chunk(delta: ReplyDelta) -> AIMessageChunk:
    """Return the chunk of a piece of text or thinking."""
    if delta.reasoning:
        return AIMessageChunk(content=delta.text, additional_kwargs={"reasoning_content": delta.reasoning})
    return AIMessageChunk(content=delta.text)


def last_chunk(reply: ProviderReply, model: str) -> AIMessageChunk:
    """Return the last chunk of a stream: tool calls, usage and finish_reason."""
    return AIMessageChunk(
        content="",
        additional_kwargs={"refusal": reply.refusal} if reply.refusal else {},
        response_metadata=_metadata(reply, model),
        tool_call_chunks=[
            tool_call_chunk(name=call.name, args=_arguments(call), id=call.id, index=place)
            for place, call in enumerate(reply.calls)
        ],
        usage_metadata=reply.usage,
        chunk_position="last",
    )


def _arguments(call: ProviderCall) -> str:
    """Return a JSON object; for an invalid call a JSON string, which LangChain cannot complete."""
    return call.arguments if call.valid else json.dumps(call.arguments, ensure_ascii=False)


def _metadata(reply: ProviderReply, model: str) -> dict[str, Any]:
    made: dict[str, Any] = {"model_name": reply.model or model}
    if reply.finish_reason is not None:
        made["finish_reason"] = reply.finish_reason
    if reply.id:
        made["id"] = reply.id
    if reply.cut_calls:
        made["cut_calls"] = reply.cut_calls
    return made
