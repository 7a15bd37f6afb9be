"""Is every call answered, whatever the other side does? In virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serve_app.agent.toolbelt import FRESH_S, Toolbelt
from serve_app.config import KnowledgeSettings
from serve_app.errors import Overloaded, ServeAppError, ToolUnavailable
from serve_app.values import Check, Context, Passage, ToolRequest, ToolResult, ToolSpec

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

CONTEXT = Context(request_id="r", run_id="r", session_id="s", deadline=4e9)


class Tools:
    """Hangs, fails or answers as told; `deed` is a tool with an effect."""

    def __init__(self) -> None:
        self.failure: ServeAppError | None = None
        self.asked = 0

    async def specs(self) -> list[ToolSpec]:
        self.asked += 1
        if self.failure:
            raise self.failure
        return [
            ToolSpec(name="look", description="", parameters={}, timeout_s=3, attempts=2, effect="pure"),
            ToolSpec(name="deed", description="", parameters={}, timeout_s=3, attempts=1, effect="effect"),
        ]

    async def call(self, context: Context, name: str, arguments: dict[str, Any]) -> ToolResult:
        if self.failure:
            raise self.failure
        await asyncio.sleep(3600)
        raise AssertionError("never")

    async def checks(self) -> list[Check]:
        return []


class Retriever:
    async def search(self, context: Context, query: str) -> list[Passage]:
        await asyncio.sleep(3600)
        return []


def _belt(tools: Tools) -> Toolbelt:
    clock = asyncio.get_running_loop().time
    return Toolbelt(tools, Retriever(), KnowledgeSettings(timeout_s=5), clock)  # type: ignore[arg-type]


async def _call(belt: Toolbelt, name: str, **arguments: str) -> ToolResult:
    await belt.specs()
    return (await belt.call(CONTEXT, ToolRequest(id="c", name=name, arguments=arguments))).result


@pytest.mark.parametrize(
    ("name", "status", "after_s"),
    [("look", "timeout", 2 * 3 + 5 + 1), ("deed", "unknown", 3 + 1), ("knowledge_search", "timeout", 5 + 1)],
)
async def test_a_call_that_hangs_ends_after_its_attempts(name: str, status: str, after_s: float) -> None:
    begun = asyncio.get_running_loop().time()
    result = await _call(_belt(Tools()), name, query="x")
    assert result.status == status
    assert asyncio.get_running_loop().time() - begun == pytest.approx(after_s)


@pytest.mark.parametrize(
    ("name", "failure", "status"),
    [
        ("look", ToolUnavailable("gone"), "error"),
        ("deed", ToolUnavailable("gone"), "unknown"),
        ("deed", Overloaded("full"), "error"),
    ],
)
async def test_a_replica_that_dies_leaves_a_result(name: str, failure: ServeAppError, status: str) -> None:
    tools = Tools()
    belt = _belt(tools)
    await belt.specs()
    tools.failure = failure
    assert (await _call(belt, name)).status == status


@pytest.mark.parametrize("failure", [ToolUnavailable("gone"), Overloaded("full")])
async def test_the_last_known_list_holds_while_nobody_answers(failure: ServeAppError) -> None:
    tools = Tools()
    belt = _belt(tools)
    known = await belt.specs()
    tools.failure = failure
    await asyncio.sleep(FRESH_S)
    assert await belt.specs() == known


async def test_the_list_is_asked_for_once_by_all_turns_of_a_while() -> None:
    tools = Tools()
    belt = _belt(tools)
    await asyncio.gather(*(belt.specs() for _ in range(20)))
    assert tools.asked == 1
    await asyncio.sleep(FRESH_S)
    await belt.specs()
    assert tools.asked == 2
