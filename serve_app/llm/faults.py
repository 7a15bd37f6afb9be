"""Faults of a model that an operator injects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk

from serve_app.resilience.faults import GARBAGE, strike

if TYPE_CHECKING:
    from serve_app.values import Fault


async def stricken(faults: tuple[Fault, ...], name: str) -> AIMessageChunk | None:
    """The malformed reply of the model `name`, where it is to give one in place of its own: a call of no tool.

    Raises:
        ConnectionError: the call is to fail.
    """
    if not await strike(faults, f"model:{name}", ConnectionError("a fault set on purpose")):
        return None
    call = tool_call_chunk(name="", args=GARBAGE, id="call_garbage", index=0)
    return AIMessageChunk(content="", tool_call_chunks=[call], response_metadata={"finish_reason": "tool_calls"})
