"""Retries, standby and circuit breaker of a tool. In virtual time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from serve_app.config import BreakerSettings, ToolSettings
from serve_app.tools.registry import ToolRegistry
from serve_app.tools.tool import ToolServerError
from serve_app.values import Context, IdempotencyKey, ToolRequest, ToolResult

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

KEY = IdempotencyKey("run:0:0")
made: list[str] = []
failing: dict[str, BaseException | None] = {}


async def _made(name: str, text: str) -> str:
    made.append(name)
    failure = failing.get(name, ...)
    if failure is None:
        await asyncio.sleep(3600)
    if isinstance(failure, BaseException):
        raise failure
    return f"{name}: {text}"


async def first(text: str) -> str:
    """Answer first."""
    return await _made("first", text)


async def second(text: str) -> str:
    """Answer in its place."""
    return await _made("second", text)


async def narrow(text: int) -> str:
    """Take numbers only."""
    return await _made("narrow", str(text))


@pytest.fixture(autouse=True)
def _all_well() -> None:
    made.clear()
    failing.clear()


def _registry(own: Iterable[str] | None = None, others: Iterable[str] = ("second",), **settings: Any) -> ToolRegistry:
    tools = {name: ToolSettings(function=f"{__name__}:{name}") for name in others}
    tools["first"] = ToolSettings(function=f"{__name__}:first", **settings)
    return ToolRegistry(tools, [], own=own, clock=asyncio.get_running_loop().time)


async def _call(registry: ToolRegistry, retries: int | None = None, left_s: float = 60) -> ToolResult:
    context = Context(request_id="r", run_id="r", session_id="s", deadline=time.time() + left_s, retries=retries)
    return await registry.call(context, ToolRequest(id="c", name="first", arguments={"text": "x"}), KEY)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_tool_that_answers_needs_no_standby() -> None:
    result = await _call(_registry(fallback="second"))
    assert (result.content, result.status, result.attempts) == ("first: x", "ok", 1)
    assert made == ["first"]


@pytest.mark.parametrize("failure", [None, ConnectionRefusedError(), ConnectionResetError()])
async def test_the_standby_is_called_once_after_all_attempts_have_failed(failure: BaseException | None) -> None:
    failing["first"] = failure
    begun = _now()
    result = await _call(_registry(fallback="second", timeout_s=3))
    assert (result.content, result.status, result.attempts) == ("second: x", "standby", 3)
    assert made == ["first", "first", "second"]
    assert _now() - begun == pytest.approx(2 + (0 if failure else 2 * 3))


async def test_a_standby_that_fails_too_leaves_the_failure_of_the_first() -> None:
    failing.update(first=None, second=ConnectionRefusedError())
    result = await _call(_registry(fallback="second", timeout_s=3))
    assert (result.status, result.attempts) == ("timeout", 3)
    assert made == ["first", "first", "second"], "the standby has one attempt"


async def test_the_tools_own_error_is_its_answer() -> None:
    failing["first"] = ValueError("no")
    result = await _call(_registry(fallback="second"))
    assert (result.status, result.attempts, made) == ("error", 1, ["first"])


async def test_a_standby_that_does_not_take_the_arguments_is_not_called() -> None:
    failing["first"] = ConnectionRefusedError()
    result = await _call(_registry(fallback="narrow", others=["narrow"]))
    assert (result.status, result.attempts, made) == ("error", 2, ["first", "first"])


async def test_the_standby_of_a_group_is_no_tool_of_the_group() -> None:
    failing["first"] = ConnectionRefusedError()
    registry = _registry(own=["first"], fallback="second")
    assert [spec.name for spec in await registry.specs()] == ["first"]
    assert [check.name for check in await registry.checks()] == ["tool:first"]
    assert (await _call(registry)).status == "standby"


async def test_a_standby_of_its_own_tool_counts_no_further() -> None:
    failing.update(first=ConnectionRefusedError(), second=ConnectionRefusedError())
    tools = {
        "first": ToolSettings(function=f"{__name__}:first", fallback="second"),
        "second": ToolSettings(function=f"{__name__}:second", fallback="first"),
    }
    result = await _call(ToolRegistry(tools, []))
    assert (result.status, made) == ("error", ["first", "first", "second"])


@pytest.mark.parametrize(
    ("retries", "attempts", "calls"), [(None, 4, 4), (0, 4, 1), (1, 4, 2), (9, 4, 4), (9, 2, 2), (0, 1, 1)]
)
async def test_no_tool_is_tried_more_often_than_it_may_and_the_request_allows(
    retries: int | None, attempts: int, calls: int
) -> None:
    failing["first"] = ConnectionRefusedError()
    result = await _call(_registry(attempts=attempts), retries)
    assert (len(made), result.attempts) == (calls, calls)


@pytest.mark.parametrize(("attempts", "waited_s"), [(2, 2), (3, 2 + 4), (4, 2 + 4 + 5), (5, 2 + 4 + 5 + 5)])
async def test_the_waits_between_tries_grow_from_two_to_five_seconds(attempts: int, waited_s: float) -> None:
    failing["first"] = ConnectionRefusedError()
    begun = _now()
    await _call(_registry(attempts=attempts))
    assert _now() - begun == pytest.approx(waited_s)


@pytest.mark.parametrize(
    ("retry_on", "failure", "calls"),
    [
        (["timeout"], None, 2),
        (["timeout"], ConnectionResetError(), 1),
        (["connection"], ConnectionResetError(), 2),
        (["connection"], ConnectionRefusedError(), 2),
        (["connection"], None, 1),
        ([], ConnectionResetError(), 1),
    ],
)
async def test_only_what_the_tool_names_is_tried_again(
    retry_on: list[str], failure: BaseException | None, calls: int
) -> None:
    failing["first"] = failure
    result = await _call(_registry(retry_on=retry_on, timeout_s=3, fallback="second"))
    assert made == ["first"] * calls + ["second"], "what is not tried again may still be stood in for"
    assert result.status == "standby"


async def test_an_effect_whose_connection_breaks_has_an_unknown_outcome() -> None:
    failing["first"] = ConnectionResetError()
    result = await _call(_registry(effect="effect"))
    assert (result.status, result.attempts, made) == ("unknown", 1, ["first"])
    failing["first"] = ConnectionRefusedError()
    assert (await _call(_registry(effect="effect"))).status == "error", "no connection, no deed"


BREAKER = BreakerSettings(failures=3, cool_down_s=10)


async def test_a_tool_that_fails_again_and_again_is_left_alone_and_then_probed() -> None:
    failing["first"] = ConnectionRefusedError()
    registry = _registry(attempts=1, breaker=BREAKER)
    results = [await _call(registry) for _ in range(5)]
    assert [(each.status, each.attempts) for each in results] == [("error", 1)] * 3 + [("refused", 0)] * 2
    assert len(made) == 3
    (_, check) = await registry.checks()
    assert (check.name, check.ok, check.required) == ("tool:first", False, False)
    assert check.reason
    await asyncio.sleep(10)
    assert (await _call(registry)).status == "error"
    assert (await _call(registry)).status == "refused", "one probe, and no more"
    assert len(made) == 4
    await asyncio.sleep(10)
    failing.clear()
    assert [(await _call(registry)).status for _ in range(2)] == ["ok", "ok"]
    assert all(check.ok for check in await registry.checks())


async def test_a_tool_that_is_left_alone_is_stood_in_for_at_once() -> None:
    failing["first"] = ConnectionRefusedError()
    registry = _registry(attempts=1, breaker=BREAKER, fallback="second")
    for _ in range(3):
        await _call(registry)
    made.clear()
    begun = _now()
    result = await _call(registry)
    assert (result.status, result.attempts, made, _now() - begun) == ("standby", 1, ["second"], 0)


async def test_a_breaker_that_opens_between_two_tries_ends_them() -> None:
    failing["first"] = ConnectionRefusedError()
    result = await _call(_registry(attempts=5, breaker=BREAKER))
    assert (result.status, result.attempts, len(made)) == ("error", 3, 3)


async def test_a_tools_own_errors_open_no_breaker() -> None:
    failing["first"] = ValueError("no")
    registry = _registry(breaker=BREAKER)
    assert [(await _call(registry)).status for _ in range(9)] == ["error"] * 9
    assert all(check.ok for check in await registry.checks())


async def test_a_request_without_time_does_not_count_against_the_tool() -> None:
    failing["first"] = None
    registry = _registry(attempts=1, breaker=BREAKER, timeout_s=30)
    assert [(await _call(registry, left_s=1)).status for _ in range(9)] == ["timeout"] * 9
    assert all(check.ok for check in await registry.checks())


async def test_the_breakers_of_two_tools_know_nothing_of_each_other() -> None:
    failing["first"] = ConnectionRefusedError()
    registry = _registry(attempts=1, breaker=BREAKER)
    for _ in range(3):
        await _call(registry)
    assert {check.name: check.ok for check in await registry.checks()} == {"tool:second": True, "tool:first": False}


async def test_a_tool_without_enough_memory_is_told_as_a_failure_and_remembered() -> None:
    failing["first"] = MemoryError()
    registry = _registry()
    assert not registry.out_of_memory
    assert (await _call(registry)).status == "error"
    assert registry.out_of_memory


@pytest.mark.parametrize(
    ("failures", "status", "retries"),
    [
        ({"first": ConnectionRefusedError(), "second": ConnectionRefusedError()}, "error", 1),
        ({"first": ConnectionRefusedError()}, "standby", 1),
        ({"first": ToolServerError(), "second": ConnectionRefusedError()}, "error", 0),
        ({"first": ToolServerError()}, "standby", 0),
    ],
)
async def test_the_call_of_a_standby_is_no_retry_whether_or_not_it_helps(
    failures: dict[str, BaseException], status: str, retries: int
) -> None:
    failing.update(failures)
    result = await _call(_registry(fallback="second"))
    assert (result.status, result.retries, made[-1]) == (status, retries, "second")


async def test_a_standby_that_is_asked_past_an_open_breaker_takes_no_retry_either() -> None:
    failing.update(first=ConnectionRefusedError(), second=ConnectionRefusedError())
    registry = _registry(fallback="second", attempts=1, breaker={"failures": 1})
    await _call(registry)
    made.clear()
    result = await _call(registry)
    assert (made, result.attempts, result.by_standby, result.retries) == (["second"], 1, 1, 0)
