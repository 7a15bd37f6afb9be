"""Which tools does the configuration make?"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from serve_app.errors import InvalidConfiguration
from serve_app.resilience.breaker import Limit
from serve_app.resilience.circuit import Circuit
from serve_app.tools.calling import Line
from serve_app.tools.egress import Egress
from serve_app.tools.failures import named
from serve_app.tools.function import function_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from serve_app.config import McpToolSettings, ToolSettings
    from serve_app.errors import Problem
    from serve_app.tools.mcp_session import McpServer
    from serve_app.tools.tool import Tool


KNOWLEDGE_SEARCH = "knowledge_search"
"""The retriever's name among the tools."""


def load(
    tools: Mapping[str, ToolSettings],
    supplies: Iterable[object],
    private_hosts: Iterable[str] = (),
    clock: Callable[[], float] = time.monotonic,
    taken: Iterable[str] = (),
) -> tuple[dict[str, Line], dict[str, Problem]]:
    """The tools that load, each with its standby, and by name the problem of each that does not.

    `taken` are names that tools elsewhere have.
    """
    maker = _Maker(supplies, private_hosts, {*tools, *taken, KNOWLEDGE_SEARCH})
    lines: dict[str, Line] = {}
    problems: dict[str, Problem] = {}
    for name, settings in tools.items():
        try:
            lines[name] = _line(name, settings, maker.tools(name, settings), clock)
        except InvalidConfiguration as error:
            problems[name] = error.problems[0]
    return {name: _with_fallback(line, lines.get(tools[name].fallback or "")) for name, line in lines.items()}, problems


def _with_fallback(line: Line, fallback: Line | None) -> Line:
    return replace(line, standby=fallback) if fallback else line


class _Maker:
    """Makes tools of settings; those of one MCP server share it."""

    def __init__(self, supplies: Iterable[object], private_hosts: Iterable[str], names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._by_type = {type(value): value for value in supplies}
        self._rules = Egress(private_hosts)
        self._servers: dict[str, McpServer] = {}

    def tools(self, name: str, settings: ToolSettings) -> list[Tool]:
        """The tool, and its second endpoint where it has one.

        Raises:
            InvalidConfiguration: it cannot be made.
        """
        if settings.http:
            from serve_app.tools.endpoint import endpoints

            return [*endpoints(name, settings.http, settings, self._rules)]
        if settings.mcp:
            return [self._mcp_tool(name, settings, settings.mcp)]
        return [function_tool(name, settings.function or "", settings, self._by_type)]

    def _mcp_tool(self, name: str, settings: ToolSettings, mcp: McpToolSettings) -> Tool:
        from serve_app.tools.mcp import McpTool, McpTools, connection
        from serve_app.tools.mcp_session import McpServer

        limit = mcp.max_response_bytes if mcp.url else 1  # a session keeps one; a program is not started twice for it
        own: dict[str, Any] = {"tool": None, "tools": None, "prefix": "", "effects": {}, "max_response_bytes": limit}
        same = mcp.model_copy(update=own).model_dump_json()
        try:
            server = self._servers.get(same) or McpServer(
                mcp.url or " ".join(mcp.command or []), connection(mcp, self._rules), mcp.connect_timeout_s
            )
        except InvalidConfiguration as error:
            problem = error.problems[0]
            raise InvalidConfiguration((replace(problem, where=f"tools.{name}.mcp: {problem.where}"),)) from None
        self._servers[same] = server
        if mcp.tools:
            return McpTools(name, settings, mcp, server, self._names)
        return McpTool(name, settings, mcp, server)


def line_of(name: str, settings: ToolSettings, tool: Tool, clock: Callable[[], float]) -> Line:
    """A tool without a second endpoint, and everything that a call of it goes by."""
    return _line(name, settings, [tool], clock)


def _line(name: str, settings: ToolSettings, tools: list[Tool], clock: Callable[[], float]) -> Line:
    limit = Limit(settings.breaker.failures, settings.breaker.cool_down_s)
    first, *others = [
        Line(
            tool,
            Circuit(called, limit, clock),
            named(settings.retry_on),
            max_result_characters=settings.max_result_characters,
        )
        for tool, called in zip(tools, (name, f"{name} at its standby"), strict=False)
    ]
    return replace(first, standby=others[0]) if others else first
