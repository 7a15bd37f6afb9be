"""Builds the tools of the configuration, each with its circuit breaker and standby."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from serve_app.errors import InvalidConfiguration
from serve_app.resilience.circuit_breaker import BreakerPolicy, GuardedCalls
from serve_app.tools.egress import EgressPolicy
from serve_app.tools.function_tool import function_tool
from serve_app.tools.invocation import GuardedTool
from serve_app.tools.tool import errors_of_kinds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from serve_app.config import McpToolSettings, ToolSettings
    from serve_app.errors import Problem
    from serve_app.tools.mcp_session import McpServer
    from serve_app.tools.tool import Tool


KNOWLEDGE_SEARCH = "knowledge_search"
"""The name by which the model calls the retriever; no tool may have it."""


def load_tools(
    tools: Mapping[str, ToolSettings],
    supplies: Iterable[object],
    private_hosts: Iterable[str] = (),
    clock: Callable[[], float] = time.monotonic,
    reserved_names: Iterable[str] = (),
) -> tuple[dict[str, GuardedTool], dict[str, Problem]]:
    """Build the tools; return those that load and the problems of the others, by name.

    `supplies` are the objects that a function's keyword-only parameters may take, by type. `reserved_names` are the
    names of tools in other processes.
    """
    factory = _ToolFactory(supplies, private_hosts, {*tools, *reserved_names, KNOWLEDGE_SEARCH})
    loaded: dict[str, GuardedTool] = {}
    problems: dict[str, Problem] = {}
    for name, settings in tools.items():
        try:
            loaded[name] = guard_tool(name, settings, factory.build(name, settings), clock)
        except InvalidConfiguration as error:
            problems[name] = error.problems[0]
    with_fallbacks = {
        name: _with_fallback(tool, loaded.get(tools[name].fallback or "")) for name, tool in loaded.items()
    }
    return with_fallbacks, problems


def _with_fallback(tool: GuardedTool, fallback: GuardedTool | None) -> GuardedTool:
    return replace(tool, standby=fallback) if fallback else tool


class _ToolFactory:
    """Builds tools from settings; the tools of one MCP server share one session."""

    def __init__(self, supplies: Iterable[object], private_hosts: Iterable[str], names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._supplies_by_type = {type(value): value for value in supplies}
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
        return [function_tool(name, settings.function or "", settings, self._supplies_by_type)]

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
    limit = BreakerPolicy(settings.breaker.failures, settings.breaker.cool_down_s)
    first, *others = [
        GuardedTool(
            tool,
            GuardedCalls(breaker_name, limit, clock),
            errors_of_kinds(settings.retry_on),
            max_result_characters=settings.max_result_characters,
        )
        for tool, breaker_name in zip(tools, (name, f"{name} at its standby"), strict=False)
    ]
    return replace(first, standby=others[0]) if others else first
