"""How is a tool called so that its failure costs no more than its answer?"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import httpx
from pydantic import BaseModel, ValidationError

from serve_app.resilience.deadline import limit_s, remaining_s
from serve_app.resilience.retry import retry
from serve_app.tools.registry import load
from serve_app.values import Check, ToolResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from serve_app.config import ToolSettings
    from serve_app.tools.registry import Tool
    from serve_app.values import CallStatus, Context, ToolSpec

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

    async def call(self, context: Context, name: str, arguments: dict[str, Any]) -> ToolResult:
        tool = self._tools.get(name)
        if tool is None:
            return _not_run(f"there is no tool {name}; the tools are: {', '.join(self._tools)}")
        try:
            valid = tool.arguments.model_validate(arguments)
        except ValidationError as error:
            return _not_run(f"wrong arguments for {name}: {_explained(error)}")
        return await _run(tool, valid, context)


async def _run(tool: Tool, arguments: BaseModel, context: Context) -> ToolResult:
    begun, tries = time.monotonic(), 0
    given = {field: getattr(arguments, field) for field in type(arguments).model_fields}

    async def attempt() -> Any:
        nonlocal tries
        tries += 1
        async with asyncio.timeout(limit_s(context.deadline, tool.spec.timeout_s)):
            return await tool.function(**given, **tool.supplied)

    status: CallStatus = "ok"
    try:
        content = _text(await retry(attempt, tool.spec.attempts, remaining_s(context.deadline), TRANSIENT))
    except (TimeoutError, httpx.TimeoutException):
        status, content = _late(tool)
        logger.warning("tool %s timed out, run %s", tool.spec.name, context.run_id)
    except Exception as error:
        status, content = "error", f"error: {tool.spec.name} failed ({type(error).__name__})"
        logger.warning("tool %s failed, run %s", tool.spec.name, context.run_id, exc_info=error)
    return ToolResult(content=content, status=status, attempts=tries, elapsed_ms=_elapsed_ms(begun))


def _late(tool: Tool) -> tuple[CallStatus, str]:
    """What a time-out means: of an effect, nobody knows whether it happened."""
    if tool.spec.effect == "effect":
        return "unknown", f"error: the outcome of {tool.spec.name} is unknown; it may have happened, do not repeat it"
    return "timeout", f"error: {tool.spec.name} did not answer in time"


def _elapsed_ms(begun: float) -> float:
    return round((time.monotonic() - begun) * 1000, 1)


def _not_run(reason: str) -> ToolResult:
    return ToolResult(content=f"error: {reason}", status="error", attempts=0, elapsed_ms=0)


def _explained(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in error.errors())


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    return json.dumps(value, ensure_ascii=False, default=str)
