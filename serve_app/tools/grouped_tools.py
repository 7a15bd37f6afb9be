"""Several Tools deployments as one: each group of tools runs in processes of its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from serve_app.errors import Overloaded, Unavailable
from serve_app.tools.tool import unavailable_spec
from serve_app.values import DependencyCheck, ToolResult

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from serve_app import ports
    from serve_app.config import ToolSettings
    from serve_app.values import Context, IdempotencyKey, ToolRequest, ToolSpec

T = TypeVar("T")


@dataclass(slots=True)
class ToolGroup:
    """One group of tools, and the specifications that its process last sent."""

    tools: ports.Tools
    settings: Mapping[str, ToolSettings]
    known_specs: list[ToolSpec] = field(default_factory=list)

    async def fetch_specs(self) -> list[ToolSpec]:
        self.known_specs = await self.tools.specs()
        return self.known_specs

    async def fetch_checks(self) -> list[DependencyCheck]:
        return await self.tools.checks()

    @property
    def names(self) -> list[str]:
        """The names of its tools; those of MCP servers once they are known."""
        return [spec.name for spec in self.known_specs] or list(self.settings)

    def has(self, name: str) -> bool:
        """Whether this group has the tool."""
        return name in self.settings or any(spec.name == name for spec in self.known_specs)

    def specs_while_away(self, _: Unavailable | Overloaded) -> list[ToolSpec]:
        """The last known specifications; the tools as unavailable if there are none."""
        return self.known_specs or [unavailable_spec(name, settings) for name, settings in self.settings.items()]

    def checks_while_away(self, error: Unavailable | Overloaded) -> list[DependencyCheck]:
        """A failed check for each tool."""
        return [
            DependencyCheck(name=f"tool:{name}", ok=False, reason=error.message, required=False)
            for name in self.settings
        ]


class GroupedTools:
    """Implements `ports.Tools` over groups; one that is away affects no other group."""

    def __init__(self, *groups: ToolGroup) -> None:
        self._groups = groups

    async def specs(self) -> list[ToolSpec]:
        specs = await self._collect(ToolGroup.fetch_specs, ToolGroup.specs_while_away)
        by_name: dict[str, ToolSpec] = {}
        for spec in specs:
            by_name.setdefault(spec.name, spec)  # `call` also takes the first group that has the name
        return list(by_name.values())

    async def call(self, context: Context, request: ToolRequest, key: IdempotencyKey) -> ToolResult:
        for group in self._groups:
            if group.has(request.name):
                return await group.tools.call(context, request, key)
        return ToolResult.no_such_tool(request.name, (name for group in self._groups for name in group.names))

    async def checks(self) -> list[DependencyCheck]:
        return await self._collect(ToolGroup.fetch_checks, ToolGroup.checks_while_away)

    async def _collect(
        self,
        fetch: Callable[[ToolGroup], Awaitable[list[T]]],
        substitute: Callable[[ToolGroup, Unavailable | Overloaded], list[T]],
    ) -> list[T]:
        """What the groups answer; for a group that does not answer, its substitute.

        Raises:
            Unavailable: no group answered.
        """
        answers = await asyncio.gather(*(_catch_unavailable(fetch(group)) for group in self._groups))
        errors = [answer for answer in answers if not isinstance(answer, list)]
        if errors and len(errors) == len(self._groups):
            raise errors[0]
        collected: list[T] = []
        for group, answer in zip(self._groups, answers, strict=True):
            collected.extend(answer if isinstance(answer, list) else substitute(group, answer))
        return collected


async def _catch_unavailable(fetching: Awaitable[list[T]]) -> list[T] | Unavailable | Overloaded:
    try:
        return await fetching
    except (Unavailable, Overloaded) as error:
        return error
