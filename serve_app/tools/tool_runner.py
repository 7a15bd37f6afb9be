"""Runs the tools of one process; implements `ports.Tools`."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from serve_app.observability.logs import hide_in_logs, log_context
from serve_app.tools.invocation import ToolInvocation
from serve_app.tools.loader import guard_tool, load_tools
from serve_app.tools.tool import ToolServer, unavailable_spec
from serve_app.values import DependencyCheck, ToolResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from serve_app.config import ToolSettings
    from serve_app.resilience.circuit_breaker import GuardedCalls
    from serve_app.tools.invocation import GuardedTool
    from serve_app.values import Context, IdempotencyKey, ToolRequest, ToolSpec

logger = logging.getLogger(__name__)

MAX_REFUSAL_CHARACTERS = 2_000
"""Length of a message about wrong arguments. The model wrote them itself and needs no more to correct them."""
NOT_LOADED = "It did not load; the log of the Tools deployment says why"
NOT_FOUND = "Its MCP server does not answer, or does not have it; it is asked again and again"
BREAKER_OPEN = "It has failed repeatedly; its circuit breaker is open"


class ToolRunner:
    """The tools of this process."""

    def __init__(
        self,
        tools: Mapping[str, ToolSettings],
        supplies: Iterable[object],
        private_hosts: Iterable[str] = (),
        own: Iterable[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`own` names the tools that this process answers for; `tools` may hold more: their fallbacks."""
        own_names = list(tools if own is None else own)
        names = [*own_names, *(tools[name].fallback or name for name in own_names)]
        needed = {name: tools[name] for name in names if name in tools}
        self._loaded, problems = load_tools(needed, supplies, private_hosts, clock, reserved_names=tools)
        self._clock = clock
        self._servers = {name: each.tool for name, each in self._loaded.items() if isinstance(each.tool, ToolServer)}
        self._of_servers: dict[str, GuardedTool] = {}
        self._own = {name: tools[name] for name in own_names}
        self.out_of_memory = False
        for problem in problems.values():
            logger.error("tool_not_loaded", extra={"problem": str(problem)})

    @property
    def circuits(self) -> dict[str, GuardedCalls]:
        """The circuit breakers of all tools and standbys, by name."""
        own = [each for name, each in self._loaded.items() if name not in self._servers]
        tools = [*own, *self._server_tools().values()]
        standbys = [each.standby for each in tools if each.standby]
        return {f"tool:{each.circuit.name}": each.circuit for each in [*tools, *standbys]}

    def _server_tools(self) -> dict[str, GuardedTool]:
        """The tools that MCP servers list; each keeps its circuit breaker while it is listed."""
        found: dict[str, GuardedTool] = {}
        for server in self._servers.values():
            for name, tool in server.tools.items():
                known = self._of_servers.get(name)
                guarded = (
                    replace(known, tool=tool)
                    if known
                    else guard_tool(name, server.settings_of(name), [tool], self._clock)
                )
                found.setdefault(name, guarded)
        self._of_servers = found
        return found

    def _find(self, name: str) -> GuardedTool | None:
        """The tool that a model calls by this name."""
        if name in self._own and name not in self._servers:
            return self._loaded.get(name)
        return self._server_tools().get(name)

    async def specs(self) -> list[ToolSpec]:
        own = [
            self._loaded[name].spec if name in self._loaded else unavailable_spec(name, self._own[name])
            for name in self._own
            if name not in self._servers or not self._servers[name].tools
        ]
        return own + [guarded.spec for guarded in self._server_tools().values()]

    async def checks(self) -> list[DependencyCheck]:
        reasons = {name: self._unavailable_reason(name) for name in self._own}
        return [
            DependencyCheck(name=f"tool:{name}", ok=reason is None, reason=reason, required=False)
            for name, reason in reasons.items()
        ]

    async def call(self, context: Context, request: ToolRequest, key: IdempotencyKey) -> ToolResult:
        name = request.name
        guarded = self._find(name)
        if guarded is None and (name not in self._own or name in self._servers):
            return ToolResult.no_such_tool(name, [spec.name for spec in await self.specs()])
        if guarded is None or not guarded.spec.ready:
            return ToolResult.refused(name, "it is not available now")
        with log_context(context.ids), hide_in_logs(guarded.spec.sensitive_values(request.arguments)):
            result = await self._run(ToolInvocation(context, request, key), guarded)
        return result.within(guarded.max_result_characters if result.attempts else MAX_REFUSAL_CHARACTERS)

    async def _run(self, invocation: ToolInvocation, guarded: GuardedTool) -> ToolResult:
        name = invocation.request.name
        try:
            return await invocation.run(guarded)
        except MemoryError:
            self.out_of_memory = True
            logger.exception("tool_out_of_memory", extra={"tool": name})
            return ToolResult(content=f"error: {name} failed", status="error", attempts=1, elapsed_ms=0)

    def start(self) -> None:
        """Start connecting to MCP servers in the background."""
        for guarded in self._loaded.values():
            guarded.tool.start()

    async def close(self) -> None:
        """Close connections and end child processes."""
        for guarded in self._loaded.values():
            await guarded.close()

    def _unavailable_reason(self, name: str) -> str | None:
        """Why a tool cannot be called now; None if it can."""
        guarded = self._loaded.get(name)
        if guarded is None:
            return NOT_LOADED
        if isinstance(guarded.tool, ToolServer):
            return None if guarded.tool.available else NOT_FOUND
        if not guarded.spec.ready:
            return NOT_FOUND
        return None if guarded.circuit.state == "closed" else BREAKER_OPEN
