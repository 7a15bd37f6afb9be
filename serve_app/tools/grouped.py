"""How are several processes of tools asked as if they were one?"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from serve_app.errors import Overloaded, Unavailable
from serve_app.tools.tool import absent
from serve_app.values import DependencyCheck, ToolResult

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from serve_app import ports
    from serve_app.config import ToolSettings
    from serve_app.values import Context, IdempotencyKey, ToolRequest, ToolSpec

T = TypeVar("T")


@dataclass(slots=True)
class Part:
    """A process's tools, and what it last told of them."""

    tools: ports.Tools
    own: Mapping[str, ToolSettings]
    known: list[ToolSpec] = field(default_factory=list)

    async def specs(self) -> list[ToolSpec]:
        self.known = await self.tools.specs()
        return self.known

    @property
    def names(self) -> list[str]:
        """Its tools, those of its MCP servers included once they are known."""
        return [spec.name for spec in self.known] or list(self.own)

    def has(self, name: str) -> bool:
        """Whether a call by this name is for it."""
        return name in self.own or any(spec.name == name for spec in self.known)

    async def checks(self) -> list[DependencyCheck]:
        return await self.tools.checks()

    def unanswered_specs(self, _: Unavailable | Overloaded) -> list[ToolSpec]:
        return self.known or [absent(name, settings) for name, settings in self.own.items()]

    def unanswered_checks(self, error: Unavailable | Overloaded) -> list[DependencyCheck]:
        return [
            DependencyCheck(name=f"tool:{name}", ok=False, reason=error.message, required=False) for name in self.own
        ]


class Grouped:
    """Asks each part for its own tools; implements `ports.Tools`. A part that is away takes only its own with it."""

    def __init__(self, *parts: Part) -> None:
        self._parts = parts

    async def specs(self) -> list[ToolSpec]:
        told = await self._told(Part.specs, Part.unanswered_specs)
        return list({spec.name: spec for spec in reversed(told)}.values())[
            ::-1
        ]  # the first of a name is the one called

    async def call(self, context: Context, request: ToolRequest, key: IdempotencyKey) -> ToolResult:
        for part in self._parts:
            if part.has(request.name):
                return await part.tools.call(context, request, key)
        return ToolResult.no_such_tool(request.name, (name for part in self._parts for name in part.names))

    async def checks(self) -> list[DependencyCheck]:
        return await self._told(Part.checks, Part.unanswered_checks)

    async def _told(
        self, ask: Callable[[Part], Awaitable[list[T]]], instead: Callable[[Part, Unavailable | Overloaded], list[T]]
    ) -> list[T]:
        """What the parts tell, or what is told in their place.

        Raises:
            Unavailable: no part answered.
        """
        answers = await asyncio.gather(*(_answer(ask(part)) for part in self._parts))
        failures = [answer for answer in answers if not isinstance(answer, list)]
        if failures and len(failures) == len(self._parts):
            raise failures[0]
        told = [
            answer if isinstance(answer, list) else instead(part, answer)
            for part, answer in zip(self._parts, answers, strict=True)
        ]
        return [each for answer in told for each in answer]


async def _answer(asking: Awaitable[list[T]]) -> list[T] | Unavailable | Overloaded:
    try:
        return await asking
    except (Unavailable, Overloaded) as error:
        return error
