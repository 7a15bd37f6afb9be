"""Tools of one process, built from the settings and called by name; implements `ports.Tools`."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from serve_app.errors import InvalidConfiguration
from serve_app.observability.logs import hide_in_logs, log_context
from serve_app.resilience.circuit_breaker import BreakerPolicy, GuardedCalls
from serve_app.tools.egress import EgressPolicy
from serve_app.tools.function_tool import function_tool
from serve_app.tools.retry import GuardedTool, ToolInvocation
from serve_app.tools.tool import ToolServer, errors_of_kinds, unavailable_spec
from serve_app.values import KNOWLEDGE_SEARCH, DependencyCheck, ToolResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from serve_app.config import McpToolSettings, ToolSettings
    from serve_app.errors import Problem
    from serve_app.tools.mcp_session import McpServer
    from serve_app.tools.tool import Tool
    from serve_app.values import Context, IdempotencyKey, ToolRequest, ToolSpec

logger = logging.getLogger(__name__)

MAX_REFUSAL_CHARACTERS = 2_000
"""Length of a message about wrong arguments. The model wrote them itself and needs no more to correct them."""
NOT_LOADED = "It did not load; the log of the Tools deployment says why"
NOT_FOUND = "Its MCP server does not answer, or does not have it; it is asked again and again"
BREAKER_OPEN = "It has failed repeatedly; its circuit breaker is open"


class ToolRegistry:
    """The tools of this process."""

    def __init__(
        self,
        tools: Mapping[str, ToolSettings],
        injectable: Iterable[object],
        private_hosts: Iterable[str] = (),
        own: Iterable[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`own` are the tools that this process offers, by name; all of `tools` by default.

        `tools` also has the settings of their fallbacks.
        """
        own_names = list(tools if own is None else own)
        names = [*own_names, *(tools[name].fallback or name for name in own_names)]
        needed = {name: tools[name] for name in names if name in tools}
        self._loaded, problems = load_tools(needed, injectable, private_hosts, clock, reserved_names=tools)
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


def load_tools(
    tools: Mapping[str, ToolSettings],
    injectable: Iterable[object],
    private_hosts: Iterable[str] = (),
    clock: Callable[[], float] = time.monotonic,
    reserved_names: Iterable[str] = (),
) -> tuple[dict[str, GuardedTool], dict[str, Problem]]:
    """Build the tools; return those that load and the problems of the others, by name.

    `injectable` are the objects that a function's keyword-only parameters may take, by type. `reserved_names` are the
    names of tools in other processes.
    """
    factory = _ToolFactory(injectable, private_hosts, {*tools, *reserved_names, KNOWLEDGE_SEARCH})
    loaded: dict[str, GuardedTool] = {}
    problems: dict[str, Problem] = {}
    for name, settings in tools.items():
        try:
            loaded[name] = guard_tool(name, settings, factory.build(name, settings), clock)
        except InvalidConfiguration as error:
            problems[name] = error.problems[0]
    built = dict(loaded)  # a fallback is called without a standby of its own
    for name, tool in built.items():
        if fallback := built.get(tools[name].fallback or ""):
            loaded[name] = replace(tool, standby=fallback)
    return loaded, problems


class _ToolFactory:
    """Builds tools from settings; the tools of one MCP server share one session."""

    def __init__(self, injectable: Iterable[object], private_hosts: Iterable[str], names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._injectable_by_type = {type(value): value for value in injectable}
        self._egress = EgressPolicy(private_hosts)
        self._servers: dict[str, McpServer] = {}

    def build(self, name: str, settings: ToolSettings) -> list[Tool]:
        """The tool, followed by the one at its standby URL if there is one.

        Raises:
            InvalidConfiguration: it cannot be built.
        """
        if settings.http:
            from serve_app.tools.http_tool import http_tools

            return [*http_tools(name, settings.http, settings, self._egress)]
        if settings.mcp:
            return [self._build_mcp(name, settings, settings.mcp)]
        return [function_tool(name, settings.function or "", settings, self._injectable_by_type)]

    def _build_mcp(self, name: str, settings: ToolSettings, mcp: McpToolSettings) -> Tool:
        from serve_app.tools.mcp_session import McpServer
        from serve_app.tools.mcp_tool import McpServerTools, McpTool, mcp_connector

        limit = mcp.max_response_bytes if mcp.url else 1  # the limit belongs to a session by URL, not to a program
        own: dict[str, Any] = {"tool": None, "tools": None, "prefix": "", "effects": {}, "max_response_bytes": limit}
        server_id = mcp.model_copy(update=own).model_dump_json()
        try:
            server = self._servers.get(server_id) or McpServer(
                mcp.url or " ".join(mcp.command or []), mcp_connector(mcp, self._egress), mcp.connect_timeout_s
            )
        except InvalidConfiguration as error:
            problem = error.problems[0]
            raise InvalidConfiguration((replace(problem, where=f"tools.{name}.mcp: {problem.where}"),)) from None
        self._servers[server_id] = server
        if mcp.tools:
            return McpServerTools(name, settings, mcp, server, self._names)
        return McpTool(name, settings, mcp, server)


def guard_tool(name: str, settings: ToolSettings, tools: list[Tool], clock: Callable[[], float]) -> GuardedTool:
    """The first of `tools`, guarded by its settings; a second one is its standby."""
    policy = BreakerPolicy(settings.breaker.failures, settings.breaker.cool_down_s)
    first, *others = [
        GuardedTool(
            tool,
            GuardedCalls(breaker_name, policy, clock),
            errors_of_kinds(settings.retry_on),
            max_result_characters=settings.max_result_characters,
        )
        for tool, breaker_name in zip(tools, (name, f"{name} at its standby"), strict=False)
    ]
    return replace(first, standby=others[0]) if others else first
