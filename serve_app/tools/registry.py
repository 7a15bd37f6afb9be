"""Which tools does the configuration make?"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from serve_app.errors import InvalidConfiguration, Problem
from serve_app.resilience.breaker import Limit
from serve_app.resilience.circuit import Circuit
from serve_app.tools.calling import Line
from serve_app.tools.egress import Egress
from serve_app.tools.failures import named
from serve_app.tools.function import function_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from serve_app.config import ToolSettings
    from serve_app.tools.tool import Tool


def load(
    tools: Mapping[str, ToolSettings],
    supplies: Iterable[object],
    private_hosts: Iterable[str] = (),
    clock: Callable[[], float] = time.monotonic,
) -> tuple[dict[str, Line], dict[str, Problem]]:
    """The tools that load, each with its standby, and by name the problem of each that does not."""
    by_type = {type(value): value for value in supplies}
    rules = Egress(private_hosts)
    lines: dict[str, Line] = {}
    problems: dict[str, Problem] = {}
    for name, settings in tools.items():
        try:
            lines[name] = _line(name, settings, _tools(name, settings, by_type, rules), clock)
        except InvalidConfiguration as error:
            problems[name] = error.problems[0]
    return {name: _with_fallback(line, lines.get(tools[name].fallback or "")) for name, line in lines.items()}, problems


def _with_fallback(line: Line, fallback: Line | None) -> Line:
    return replace(line, standby=fallback) if fallback else line


def _tools(name: str, settings: ToolSettings, by_type: Mapping[type, object], rules: Egress) -> list[Tool]:
    """The tool, and its second endpoint where it has one."""
    if settings.function:
        return [function_tool(name, settings.function, settings, by_type)]
    if settings.http:
        from serve_app.tools.endpoint import endpoints

        return [*endpoints(name, settings.http, settings, rules)]
    raise InvalidConfiguration((Problem(f"tools.{name}", "of no kind", "Name its function, http or mcp"),))


def _line(name: str, settings: ToolSettings, tools: list[Tool], clock: Callable[[], float]) -> Line:
    limit = Limit(settings.breaker.failures, settings.breaker.cool_down_s)
    first, *others = [
        Line(tool, Circuit(called, limit, clock), named(settings.retry_on))
        for tool, called in zip(tools, (name, f"{name} at its standby"), strict=False)
    ]
    return replace(first, standby=others[0]) if others else first
