"""How is a tool called so that its failure costs no more than its answer?"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import httpx
from pydantic import BaseModel, ValidationError

from serve_app.resilience.deadline import elapsed_ms, limit_s, remaining_s
from serve_app.resilience.faults import GARBAGE, strike
from serve_app.resilience.retry import retry
from serve_app.tools.registry import load
from serve_app.values import Check, ToolResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from serve_app.config import ToolSettings
    from serve_app.tools.registry import Tool
    from serve_app.values import Context, IdempotencyKey, ToolRequest, ToolSpec

logger = logging.getLogger(__name__)

TRANSIENT = (TimeoutError, ConnectionError, httpx.TransportError)


class Runner:
    """The tools of this process; implements `ports.Tools`."""

    def __init__(self, tools: Mapping[str, ToolSettings], supplies: Iterable[object]) -> None:
        self._tools, self._problems = load(tools, supplies)
        for problem in self._problems.values():
            logger.error("%s", problem)

    async def specs(self) -> list[ToolSpec]:
        return [tool.spec for tool in self._tools.values()]

    async def checks(self) -> list[Check]:
        why_not = "It did not load; the log of the Tools deployment says why"
        return [Check(name=f"tool:{name}", ok=True) for name in self._tools] + [
            Check(name=f"tool:{name}", ok=False, reason=why_not) for name in self._problems
        ]

    async def call(self, context: Context, request: ToolRequest, key: IdempotencyKey) -> ToolResult:
        name = request.name
        tool = self._tools.get(name)
        if tool is None:
            return ToolResult.not_run(f"there is no tool {name}; the tools are: {', '.join(self._tools)}")
        try:
            valid = tool.arguments.model_validate(request.arguments)
        except ValidationError as error:
            return ToolResult.not_run(f"wrong arguments for {name}: {_explained(error)}")
        given = {field: getattr(valid, field) for field in type(valid).model_fields}
        if tool.key_parameter:
            given[tool.key_parameter] = key
        return await _run(tool, given, context)


async def _run(tool: Tool, given: Mapping[str, Any], context: Context) -> ToolResult:
    begun, tries = time.monotonic(), 0

    async def attempt() -> Any:
        nonlocal tries
        tries += 1
        async with asyncio.timeout(limit_s(context.deadline, tool.spec.timeout_s)):
            if await strike(context.faults, f"tool:{tool.spec.name}", ConnectionError("a fault set on purpose")):
                return GARBAGE
            return await tool.function(**given, **tool.supplied)

    try:
        content = _text(await retry(attempt, tool.spec.attempts, remaining_s(context.deadline), TRANSIENT))
    except (TimeoutError, httpx.TimeoutException):
        logger.warning("tool %s timed out, run %s", tool.spec.name, context.run_id)
        ended = ToolResult.unknown if tool.spec.effect == "effect" else ToolResult.late
        return ended(tool.spec.name, tries, elapsed_ms(begun))
    except Exception as error:
        logger.warning("tool %s failed, run %s", tool.spec.name, context.run_id, exc_info=error)
        content = f"error: {tool.spec.name} failed ({type(error).__name__})"
        return ToolResult(content=content, status="error", attempts=tries, elapsed_ms=elapsed_ms(begun))
    return ToolResult(content=content, status="ok", attempts=tries, elapsed_ms=elapsed_ms(begun))


def _explained(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in error.errors())


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    return json.dumps(value, ensure_ascii=False, default=str)
