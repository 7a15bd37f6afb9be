"""Which tools does this process run, and how are they?"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from serve_app.observability.logs import about, hiding
from serve_app.tools.calling import Call
from serve_app.tools.registry import line_of, load
from serve_app.tools.tool import ServerTools, absent
from serve_app.values import DependencyCheck, ToolResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from serve_app.config import ToolSettings
    from serve_app.resilience.circuit import Circuit
    from serve_app.tools.calling import Line
    from serve_app.values import Context, IdempotencyKey, ToolRequest, ToolSpec

logger = logging.getLogger(__name__)

MAX_REASON_CHARACTERS = 2_000
"""Of what is told of arguments that are wrong: the model wrote them itself, and needs no more to mend them."""
NOT_LOADED = "It did not load; the log of the Tools deployment says why"
NOT_FOUND = "Its MCP server does not answer, or does not have it; it is asked again and again"
LEFT_ALONE = "It has failed again and again, and is left alone for a while"


class Runner:
    """The tools of this process; implements `ports.Tools`."""

    def __init__(
        self,
        tools: Mapping[str, ToolSettings],
        supplies: Iterable[object],
        private_hosts: Iterable[str] = (),
        own: Iterable[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`tools` may hold more than this process's `own`: their standbys."""
        mine = list(tools if own is None else own)
        named = [*mine, *(tools[name].fallback or name for name in mine)]
        wanted = {name: tools[name] for name in named if name in tools}
        self._lines, problems = load(wanted, supplies, private_hosts, clock, taken=tools)
        self._clock = clock
        self._servers = {name: line.tool for name, line in self._lines.items() if isinstance(line.tool, ServerTools)}
        self._listed: dict[str, Line] = {}
        self._own = {name: tools[name] for name in mine}
        self.out_of_memory = False
        for problem in problems.values():
            logger.error("tool_not_loaded", extra={"problem": str(problem)})

    @property
    def circuits(self) -> dict[str, Circuit]:
        """The breaker of each tool, and of each second endpoint."""
        lines = [line for name, line in self._lines.items() if name not in self._servers] + list(self._all().values())
        standbys = [line.standby for line in lines if line.standby]
        return {f"tool:{line.circuit.name}": line.circuit for line in [*lines, *standbys]}

    def _all(self) -> dict[str, Line]:
        """The tools that servers have listed: each keeps its breaker as long as it is there."""
        found: dict[str, Line] = {}
        for server in self._servers.values():
            for name, tool in server.tools.items():
                known = self._listed.get(name)
                line = replace(known, tool=tool) if known else None
                found.setdefault(name, line or line_of(name, server.settings_of(name), tool, self._clock))
        self._listed = found
        return found

    def _line(self, name: str) -> Line | None:
        """The line of a tool that is called by this name."""
        if name in self._own and name not in self._servers:
            return self._lines.get(name)
        return self._all().get(name)

    async def specs(self) -> list[ToolSpec]:
        servers = self._servers
        told = [
            self._lines[name].spec if name in self._lines else absent(name, self._own[name])
            for name in self._own
            if name not in servers or not servers[name].tools
        ]
        return told + [line.spec for line in self._all().values()]

    async def checks(self) -> list[DependencyCheck]:
        return [
            DependencyCheck(name=f"tool:{name}", ok=reason is None, reason=reason, required=False)
            for name, reason in ((name, self._reason(name)) for name in self._own)
        ]

    async def call(self, context: Context, request: ToolRequest, key: IdempotencyKey) -> ToolResult:
        name = request.name
        line = self._line(name)
        if line is None and (name not in self._own or name in self._servers):
            return ToolResult.no_such_tool(name, [spec.name for spec in await self.specs()])
        if line is None or not line.spec.ready:
            return ToolResult.refused(name, "it is not available now")
        with about(context.ids), hiding(line.spec.sensitive_values(request.arguments)):
            result = await self._called(Call(context, request, key), line)
        return result.within(line.max_result_characters if result.attempts else MAX_REASON_CHARACTERS)

    async def _called(self, call: Call, line: Line) -> ToolResult:
        name = call.request.name
        try:
            return await call.through(line)
        except MemoryError:
            self.out_of_memory = True
            logger.exception("tool_out_of_memory", extra={"tool": name})
            return ToolResult(content=f"error: {name} failed", status="error", attempts=1, elapsed_ms=0)

    def start(self) -> None:
        """Look for the servers of tools in the background."""
        for line in self._lines.values():
            line.tool.start()

    async def close(self) -> None:
        """Let go of connections and processes."""
        for line in self._lines.values():
            await line.close()

    def _reason(self, name: str) -> str | None:
        """Why a tool cannot be called now."""
        line = self._lines.get(name)
        if line is None:
            return NOT_LOADED
        if isinstance(line.tool, ServerTools):
            return None if line.tool.there else NOT_FOUND
        if not line.spec.ready:
            return NOT_FOUND
        return None if line.circuit.state == "closed" else LEFT_ALONE
