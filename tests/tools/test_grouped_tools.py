"""Tools of several processes look like one; one that is away affects no other."""

from __future__ import annotations

import pytest

from serve_app.config import ToolSettings
from serve_app.errors import Overloaded, ServeAppError, ToolUnavailable
from serve_app.tools.grouped_tools import GroupedTools, ToolGroup
from serve_app.values import Context, DependencyCheck, IdempotencyKey, ToolRequest, ToolResult, ToolSpec

CONTEXT = Context(request_id="r", run_id="r", session_id="s", deadline=4e9)
KEY = IdempotencyKey("run:0:0")
SETTINGS = ToolSettings(function="m:f", effect="idempotent")


class Process:
    """Runs the tools that it is named by, unless it fails; implements `ports.Tools`."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.failure: ServeAppError | None = None
        self.called: list[str] = []

    async def specs(self) -> list[ToolSpec]:
        self._fail()
        return [
            ToolSpec(name=name, description="", parameters={}, timeout_s=1, attempts=1, effect="pure")
            for name in self.names
        ]

    async def call(self, context: Context, request: ToolRequest, key: IdempotencyKey) -> ToolResult:
        self._fail()
        self.called.append(request.name)
        return ToolResult(content=f"{request.name} {key}", status="ok", attempts=1, elapsed_ms=1)

    async def checks(self) -> list[DependencyCheck]:
        self._fail()
        return [DependencyCheck(name=f"tool:{name}", ok=True, required=False) for name in self.names]

    def _fail(self) -> None:
        if self.failure:
            raise self.failure


@pytest.fixture
def processes() -> list[Process]:
    return [Process("a", "b"), Process("c"), Process()]


@pytest.fixture
def tools(processes: list[Process]) -> GroupedTools:
    return GroupedTools(*(ToolGroup(each, dict.fromkeys(each.names, SETTINGS)) for each in processes))


def _request(name: str) -> ToolRequest:
    return ToolRequest(id="c", name=name, arguments={})


async def test_each_tool_is_called_where_it_runs(tools: GroupedTools, processes: list[Process]) -> None:
    assert [spec.name for spec in await tools.specs()] == ["a", "b", "c"]
    for name in ("c", "a", "b"):
        assert (await tools.call(CONTEXT, _request(name), KEY)).content == f"{name} {KEY}"
    assert [each.called for each in processes] == [["a", "b"], ["c"], []]


async def test_a_tool_that_nobody_has_goes_back_to_the_model(tools: GroupedTools) -> None:
    result = await tools.call(CONTEXT, _request("ghost"), KEY)
    assert (result.status, result.attempts) == ("error", 0)
    assert "the tools are: a, b, c" in result.content


@pytest.mark.parametrize("failure", [ToolUnavailable("gone"), Overloaded("full")])
async def test_a_process_that_is_away_takes_only_its_own_tools_with_it(
    tools: GroupedTools, processes: list[Process], failure: ServeAppError
) -> None:
    processes[1].failure = failure
    assert {spec.name: spec.ready for spec in await tools.specs()} == {"a": True, "b": True, "c": False}
    assert (await tools.specs())[-1].effect == "idempotent", "known from the settings"
    checks = {check.name: (check.ok, check.required) for check in await tools.checks()}
    assert checks == {"tool:a": (True, False), "tool:b": (True, False), "tool:c": (False, False)}
    assert (await tools.call(CONTEXT, _request("a"), KEY)).status == "ok"
    with pytest.raises(type(failure)):
        await tools.call(CONTEXT, _request("c"), KEY)


async def test_the_last_word_of_a_process_on_its_tools_holds_while_it_is_away(
    tools: GroupedTools, processes: list[Process]
) -> None:
    known = await tools.specs()
    processes[0].failure = ToolUnavailable("gone")
    assert await tools.specs() == known


async def test_where_no_process_answers_the_caller_is_told(tools: GroupedTools, processes: list[Process]) -> None:
    for each in processes:
        each.failure = ToolUnavailable("gone")
    with pytest.raises(ToolUnavailable):
        await tools.specs()
    with pytest.raises(ToolUnavailable):
        await tools.checks()
