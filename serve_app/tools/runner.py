"""Which tools does this process run, and how are they?"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from serve_app.observability.logs import about, hiding
from serve_app.tools.calling import Call
from serve_app.tools.registry import load
from serve_app.tools.tool import absent
from serve_app.values import Check, ToolResult

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
        self._lines, problems = load(wanted, supplies, private_hosts, clock)
        self._own = {name: tools[name] for name in mine}
        self.out_of_memory = False
        for problem in problems.values():
            logger.error("tool_not_loaded", extra={"problem": str(problem)})

    @property
    def circuits(self) -> dict[str, Circuit]:
        """The breaker of each tool, and of each second endpoint."""
        standbys = [line.standby for line in self._lines.values() if line.standby]
        return {f"tool:{line.circuit.name}": line.circuit for line in [*self._lines.values(), *standbys]}

    async def specs(self) -> list[ToolSpec]:
        return [self._lines[name].spec if name in self._lines else absent(name, self._own[name]) for name in self._own]

    async def checks(self) -> list[Check]:
        return [
            Check(name=f"tool:{name}", ok=reason is None, reason=reason, required=False)
            for name, reason in ((name, self._reason(name)) for name in self._own)
        ]

    async def call(self, context: Context, request: ToolRequest, key: IdempotencyKey) -> ToolResult:
        name = request.name
        if name not in self._own:
            return ToolResult.no_such_tool(name, self._own)
        line = self._lines.get(name)
        if line is None or not line.spec.ready:
            return ToolResult.refused(name, "it is not available now")
        with about(context.ids), hiding(line.spec.hidden(request.arguments)):
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
        if not line.spec.ready:
            return NOT_FOUND
        return None if line.circuit.state == "closed" else LEFT_ALONE
