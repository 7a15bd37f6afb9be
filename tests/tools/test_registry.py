"""A tool's failure costs its own answer only."""

import asyncio
import json
import time
from typing import Any

import pytest
from pydantic import BaseModel

from serve_app.config import ToolSettings
from serve_app.observability.traceparent import current
from serve_app.tools.registry import ToolRegistry
from serve_app.values import Context, Fault, FaultMode, IdempotencyKey, ToolRequest, ToolResult

KEY = IdempotencyKey("run:0:0")

calls: list[str] = []


class Point(BaseModel):
    x: int


async def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    calls.append("add")
    return a + b


async def traced() -> str:
    """Tell the trace of the call."""
    return current()


async def point() -> Point:
    """Give a point."""
    return Point(x=1)


async def shift(by: Point) -> str:
    """Shift by a point."""
    return f"shifted by {by.x}"


async def slow() -> str:
    """Take too long."""
    calls.append("slow")
    await asyncio.sleep(60)
    return "never"


async def secretive() -> str:
    """Fail with a text that nobody may see."""
    calls.append("secretive")
    raise ValueError("password is hunter2")


async def refused() -> str:
    """Lose the connection once."""
    calls.append("refused")
    if calls.count("refused") == 1:
        raise ConnectionRefusedError
    return "second time lucky"


async def book(room: int, *, once: IdempotencyKey) -> str:
    """Book a room once, over a line that breaks the first time."""
    assert isinstance(once, IdempotencyKey)
    calls.append(once)
    if len(calls) == 1:
        raise ConnectionResetError
    return f"room {room}"


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    calls.clear()


async def _call(
    name: str, arguments: dict[str, Any], deadline_s: float = 30, behind_s: float = 0, **settings: Any
) -> ToolResult:
    tools = {name: ToolSettings(function=f"{__name__}:{name}", **settings)}
    deadline = time.time() + behind_s + deadline_s
    context = Context(request_id="r", run_id="r", session_id="s", deadline=deadline, timeout_s=deadline_s)
    return await ToolRegistry(tools, injectable=[]).call(
        context, ToolRequest(id="c", name=name, arguments=arguments), KEY
    )


async def test_a_tool_is_called_with_valid_arguments() -> None:
    result = await _call("add", {"a": 2, "b": 3})
    assert (result.content, result.status, result.attempts) == ("5", "ok", 1)


async def test_what_a_tool_returns_becomes_text_for_the_model() -> None:
    assert (await _call("point", {})).content == '{"x":1}'


async def test_an_argument_of_a_model_type_arrives_as_that_type() -> None:
    assert (await _call("shift", {"by": {"x": 4}})).content == "shifted by 4"


@pytest.mark.parametrize("arguments", [{}, {"a": "x"}, {"a": 1, "c": 2}])
async def test_a_wrong_argument_goes_back_to_the_model_and_nothing_runs(arguments: dict[str, Any]) -> None:
    result = await _call("add", arguments)
    assert (result.status, result.attempts, calls) == ("error", 0, [])
    assert result.content.startswith("error: wrong arguments for add: ")


async def test_an_unknown_tool_goes_back_to_the_model() -> None:
    context = Context(request_id="r", run_id="r", session_id="s", deadline=time.time() + 5)
    result = await ToolRegistry({}, injectable=[]).call(context, ToolRequest(id="c", name="ghost", arguments={}), KEY)
    assert (result.status, result.attempts) == ("error", 0)


async def test_a_tools_failure_is_a_result_without_its_text() -> None:
    result = await _call("secretive", {})
    assert (result.status, result.attempts, calls) == ("error", 1, ["secretive"])
    assert "hunter2" not in result.content


@pytest.mark.looptime
async def test_a_lost_connection_is_tried_again_after_two_seconds() -> None:
    started = asyncio.get_running_loop().time()
    result = await _call("refused", {})
    assert (result.content, result.status, result.attempts) == ("second time lucky", "ok", 2)
    assert asyncio.get_running_loop().time() - started >= 2


async def test_an_effect_tool_has_one_attempt() -> None:
    result = await _call("refused", {}, effect="effect")
    assert (result.status, result.attempts, calls) == ("error", 1, ["refused"])


async def test_a_tool_that_takes_too_long_is_cut_at_its_timeout() -> None:
    result = await _call("slow", {}, timeout_s=0.1, attempts=1)
    assert (result.status, calls) == ("timeout", ["slow"])
    assert 100 <= result.elapsed_ms < 1000


@pytest.mark.parametrize("behind_s", [0, 3000])
async def test_no_attempt_outlives_the_request(behind_s: float) -> None:
    result = await _call("slow", {}, deadline_s=0.3, behind_s=behind_s, timeout_s=10, attempts=2)
    assert (result.status, calls) == ("timeout", ["slow"])
    assert result.elapsed_ms < 1000


async def test_an_effect_that_takes_too_long_has_an_unknown_outcome() -> None:
    result = await _call("slow", {}, timeout_s=0.1, effect="effect")
    assert (result.status, result.attempts, calls) == ("unknown", 1, ["slow"])
    assert "do not repeat" in result.content


@pytest.mark.looptime
async def test_a_call_that_is_tried_again_comes_under_the_same_key() -> None:
    result = await _call("book", {"room": 1}, effect="idempotent")
    assert (result.content, result.attempts, calls) == ("room 1", 2, [KEY, KEY])


async def test_no_model_chooses_the_key() -> None:
    result = await _call("book", {"room": 1, "once": "mine"}, effect="idempotent")
    assert (result.status, result.attempts, calls) == ("error", 0, [])


async def _faulty(mode: FaultMode, name: str = "add", **settings: Any) -> ToolResult:
    tools = {name: ToolSettings(function=f"{__name__}:{name}", timeout_s=0.3, **settings)}
    fault = Fault(target="tool:add", mode=mode, rate=1, delay_s=0.1, until=time.time() + 60)
    context = Context(request_id="r", run_id="r", session_id="s", deadline=time.time() + 30, faults=(fault,))
    arguments = {"a": 1} if name == "add" else {}
    return await ToolRegistry(tools, injectable=[]).call(
        context, ToolRequest(id="c", name=name, arguments=arguments), KEY
    )


@pytest.mark.parametrize(
    ("mode", "status", "made", "least_ms"),
    [
        ("error", "error", [], 0),
        ("timeout", "timeout", [], 300),
        ("slow", "ok", ["add"], 100),
        ("garbage", "ok", [], 0),
    ],
)
async def test_a_fault_hits_the_tool_it_names(mode: FaultMode, status: str, made: list[str], least_ms: float) -> None:
    result = await _faulty(mode, attempts=1)
    assert (result.status, calls) == (status, made)
    assert least_ms <= result.elapsed_ms < 900


async def test_garbage_of_a_tool_cannot_be_read() -> None:
    content = (await _faulty("garbage")).content
    assert content.strip()
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(content)


@pytest.mark.looptime
async def test_each_attempt_of_a_faulty_tool_is_hit() -> None:
    result = await _faulty("error", attempts=2)
    assert (result.status, result.attempts, calls) == ("error", 2, [])


async def test_a_fault_leaves_other_tools_alone() -> None:
    assert (await _faulty("error", "point")).status == "ok"


async def test_an_effect_that_a_fault_keeps_from_answering_has_an_unknown_outcome() -> None:
    assert (await _faulty("timeout", effect="effect")).status == "unknown"


async def test_a_function_can_read_the_trace_of_its_call() -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    context = Context(request_id="r", run_id="r", session_id="s", deadline=time.time() + 30, traceparent=traceparent)
    tools = {"traced": ToolSettings(function=f"{__name__}:traced")}
    result = await ToolRegistry(tools, injectable=[]).call(
        context, ToolRequest(id="c", name="traced", arguments={}), KEY
    )
    assert result.content == traceparent
    assert current() == ""
