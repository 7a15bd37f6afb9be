"""How are messages written in the form of OpenTelemetry's semantic conventions for generative AI?"""

from __future__ import annotations

from typing import Any


def in_parts(value: Any, role: str) -> list[dict[str, Any]] | None:
    """Messages in OpenAI's form, or a text that `role` said, as messages of parts."""
    if value is None:
        return None
    messages = value if isinstance(value, list) else [{"role": role, "content": value}]
    return [{"role": each.get("role", role), "parts": _parts(each)} for each in messages]


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    if message.get("role") == "tool":
        return [{"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content}]
    blocks = content if isinstance(content, list) else [content] if content else []
    calls = message.get("tool_calls") or []
    return [*(_text(each) for each in blocks), *(_call(each) for each in calls)]


def _text(block: Any) -> dict[str, Any]:
    content = block.get("text", "") if isinstance(block, dict) else str(block)
    return {"type": "text", "content": content}


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function", {})
    return {
        "type": "tool_call",
        "id": call.get("id"),
        "name": function.get("name"),
        "arguments": function.get("arguments"),
    }
