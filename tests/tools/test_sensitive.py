"""Sensitive arguments stand in no log line, whatever the tool does with them."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from pydantic import Field

from serve_app.agent.tool_dispatch import ToolDispatcher
from serve_app.config import KnowledgeSettings, ToolSettings
from serve_app.resilience.retry import RetryBudget
from serve_app.tools.registry import ToolRegistry
from serve_app.values import Context, IdempotencyKey, Sensitive, ToolRequest

if TYPE_CHECKING:
    from captured_logs import CapturedLogs

KEY = IdempotencyKey("run:0:0")
CONTEXT = Context(request_id="q", run_id="r", session_id="s", deadline=4e9)
ARGUMENTS = {"pin": "rosebud", "card": {"number": "xy-77-88", "name": "Kane"}, "amount": 3, "short": "ab"}


async def pay(
    pin: Annotated[str, Sensitive],
    card: Annotated[dict[str, str], Field(description="The card."), Sensitive],
    amount: int,
    short: Annotated[str, Sensitive] = "",
) -> str:
    """Pay an amount."""
    logging.getLogger("vendor.sdk").warning("paying with %s", pin)
    raise ValueError(f"card {card['number']} of {card['name']} with {pin} is not known for {amount}")


def registry() -> ToolRegistry:
    return ToolRegistry({"pay": ToolSettings(function=f"{__name__}:pay")}, [])


def request(arguments: dict[str, Any] = ARGUMENTS) -> ToolRequest:
    return ToolRequest(id="c", name="pay", arguments=arguments)


async def test_the_mark_is_in_the_schema_that_every_process_reads() -> None:
    [spec] = await registry().specs()
    assert spec.sensitive == {"pin", "card", "short"}
    assert type(spec).model_validate_json(spec.model_dump_json()).sensitive == spec.sensitive


async def test_neither_the_tool_nor_a_library_gets_it_into_a_line_or_a_traceback(captured_logs: CapturedLogs) -> None:
    result = await registry().call(CONTEXT, request(), KEY)
    assert result.status == "error"
    text = json.dumps(captured_logs.lines) + "".join(captured_logs.readable)
    assert "paying with [sensitive]" in text
    assert "is not known for 3" in text
    for secret in ("rosebud", "xy-77-88", "Kane"):
        assert secret not in text
    assert all(line["run_id"] == "r" for line in captured_logs.lines)


@pytest.mark.parametrize("arguments", [ARGUMENTS, {**ARGUMENTS, "pin": 4711}], ids=["valid", "invalid"])
async def test_the_agent_tells_of_the_call_without_it(captured_logs: CapturedLogs, arguments: dict[str, Any]) -> None:
    belt = ToolDispatcher(registry(), None, KnowledgeSettings(), lambda: 0)  # type: ignore[arg-type]  # nothing is searched
    await belt.specs()
    await belt.call(CONTEXT, request(arguments), KEY, RetryBudget(0))
    [line] = captured_logs.of("tool_called")
    masked = "[sensitive]"
    assert line["arguments"] == {"pin": masked, "card": masked, "amount": 3, "short": masked}
    assert "rosebud" not in json.dumps(captured_logs.lines)
    assert "4711" not in json.dumps(captured_logs.lines)
