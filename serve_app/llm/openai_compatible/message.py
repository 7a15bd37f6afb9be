"""A decoded reply as LangChain's messages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk

if TYPE_CHECKING:
    from serve_app.llm.openai_compatible.reply import Delta, Reply
    from serve_app.llm.openai_compatible.tool_calls import ToolCall


def whole_message(reply: Reply, model: str) -> AIMessage:
    """The message of a reply that was not shown in pieces."""
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


def text_chunk(delta: Delta) -> AIMessageChunk:
    """The chunk that shows a piece of text or thinking."""
    if delta.reasoning:
        return AIMessageChunk(content=delta.text, additional_kwargs={"reasoning_content": delta.reasoning})
    return AIMessageChunk(content=delta.text)


def last_chunk(reply: Reply, model: str) -> AIMessageChunk:
    """The chunk that ends a reply: its tool calls, usage and finish_reason; its text has been shown."""
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


def _arguments(call: ToolCall) -> str:
    """A JSON object; of an invalid call a JSON string, which LangChain cannot complete into an object."""
    return call.arguments if call.valid else json.dumps(call.arguments, ensure_ascii=False)


def _metadata(reply: Reply, model: str) -> dict[str, Any]:
    made: dict[str, Any] = {"model_name": reply.model or model}
    if reply.finish_reason is not None:
        made["finish_reason"] = reply.finish_reason
    if reply.id:
        made["id"] = reply.id
    if reply.cut_calls:
        made["cut_calls"] = reply.cut_calls
    return made
