"""Tool dispatch: every call has an outcome, whatever the other side does. In virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from serve_app.agent.tool_dispatch import FAILOVER_PAUSES_S, FIRST_LOAD_S, SPECS_TTL_S, ToolDispatcher
from serve_app.config import KnowledgeSettings
from serve_app.errors import Overloaded, RetrieverUnavailable, ServeAppError, StoreUnavailable, ToolUnavailable
from serve_app.resilience.retry import RetryBudget
from serve_app.values import (
    Context,
    DependencyCheck,
    IdempotencyKey,
    Passage,
    SearchResult,
    ToolRequest,
    ToolResult,
    ToolSpec,
)

if TYPE_CHECKING:
    from captured_logs import CapturedLogs

    from serve_app.values import Effect

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

CONTEXT = Context(request_id="r", run_id="r", session_id="s", deadline=4e9)
KEY = IdempotencyKey("run:0:0")
GONE = ToolUnavailable("gone")
SENT_AT_MOST = 1 + len(FAILOVER_PAUSES_S)


class Other:
    """The other side: fails as often as told, then answers; hangs where it is not told to fail at all."""

    def __init__(self) -> None:
        self.failure: ServeAppError | None = None
        self.failures = SENT_AT_MOST
        self.sent: list[str] = []

    async def answer(self, key: str) -> None:
        self.sent.append(key)
        if self.failure is None:
            await _never()
        elif len(self.sent) <= self.failures:
            raise self.failure


class Tools(Other):
    """`look` is pure, `save` idempotent, `deed` has an effect; implements `ports.Tools`."""

    def __init__(self) -> None:
        super().__init__()
        self.spec_calls = 0
        self.granted: list[int | None] = []
        self.result = ToolResult(content="done", status="ok", attempts=1, elapsed_ms=1)
        self.standby_s: float | None = None
        self.ready = True
        self.parameters: dict[str, Any] = {}
        self.absent: ServeAppError | None = None

    async def specs(self) -> list[ToolSpec]:
        self.spec_calls += 1
        if self.absent:
            raise self.absent
        tools: list[tuple[str, int, Effect]] = [("look", 2, "pure"), ("save", 2, "idempotent"), ("deed", 1, "effect")]
        return [
            ToolSpec(
                name=name,
                description="",
                parameters=self.parameters,
                timeout_s=3,
                attempts=attempts,
                effect=effect,
                standby_s=self.standby_s,
                ready=self.ready or name != "look",
            )
            for name, attempts, effect in tools
        ]

    async def call(self, context: Context, request: ToolRequest, key: IdempotencyKey) -> ToolResult:
        self.granted.append(context.retries)
        await self.answer(key)
        return self.result

    async def checks(self) -> list[DependencyCheck]:
        return []


class Retriever(Other):
    async def search(self, context: Context, query: str) -> SearchResult:
        await self.answer(query)
        return SearchResult(passages=[Passage(document_id="d", source="d.md", title="T", text="found", score=1)])


def _dispatcher(tools: Tools, retriever: Retriever | None = None) -> ToolDispatcher:
    clock = asyncio.get_running_loop().time
    return ToolDispatcher(tools, retriever or Retriever(), KnowledgeSettings(timeout_s=5), clock)  # type: ignore[arg-type]


async def _never() -> NoReturn:
    await asyncio.sleep(3600)
    raise AssertionError("never")


async def _call(dispatcher: ToolDispatcher, name: str, **arguments: str) -> ToolResult:
    await dispatcher.specs()
    return (
        await dispatcher.call(CONTEXT, ToolRequest(id="c", name=name, arguments=arguments), KEY, RetryBudget(6))
    ).result


@pytest.mark.parametrize(
    ("name", "status", "after_s"),
    [
        ("look", "timeout", 2 * 3 + 5 + 1),
        ("save", "timeout", 2 * 3 + 5 + 1),
        ("deed", "unknown", 3 + 1),
        ("knowledge_search", "timeout", 4 * 5 + 1),
    ],
)
async def test_a_call_that_hangs_ends_after_its_attempts(name: str, status: str, after_s: float) -> None:
    begun = asyncio.get_running_loop().time()
    result = await _call(_dispatcher(Tools()), name, query="x")
    assert result.status == status
    assert asyncio.get_running_loop().time() - begun == pytest.approx(after_s)


@pytest.mark.parametrize(
    ("name", "failure", "status"),
    [
        ("look", GONE, "error"),
        ("save", GONE, "error"),
        ("deed", GONE, "unknown"),
        ("deed", Overloaded("full"), "error"),
    ],
)
async def test_a_replica_that_dies_leaves_a_result(name: str, failure: ServeAppError, status: str) -> None:
    tools = Tools()
    tools.failure = failure
    assert (await _call(_dispatcher(tools), name)).status == status


@pytest.mark.parametrize("name", ["look", "save"])
@pytest.mark.parametrize("failures", range(SENT_AT_MOST))
async def test_a_call_whose_replica_dies_is_made_again_under_the_same_key(name: str, failures: int) -> None:
    tools = Tools()
    tools.failure, tools.failures = GONE, failures
    begun = asyncio.get_running_loop().time()
    result = await _call(_dispatcher(tools), name)
    assert (result.status, tools.sent) == ("ok", [KEY] * (failures + 1))
    assert asyncio.get_running_loop().time() - begun == pytest.approx(sum(FAILOVER_PAUSES_S[:failures]))


@pytest.mark.parametrize("failures", range(SENT_AT_MOST))
async def test_a_search_whose_replica_dies_is_made_again(failures: int) -> None:
    retriever = Retriever()
    retriever.failure, retriever.failures = RetrieverUnavailable("gone"), failures
    result = await _call(_dispatcher(Tools(), retriever), "knowledge_search", query="x")
    assert (result.status, retriever.sent) == ("ok", ["x"] * (failures + 1))


async def test_a_call_that_no_replica_takes_is_given_up_after_a_while() -> None:
    tools, retriever = Tools(), Retriever()
    tools.failure, retriever.failure = GONE, RetrieverUnavailable("gone")
    dispatcher = _dispatcher(tools, retriever)
    begun = asyncio.get_running_loop().time()
    assert (await _call(dispatcher, "look")).status == "error"
    assert asyncio.get_running_loop().time() - begun == pytest.approx(sum(FAILOVER_PAUSES_S))
    assert (await _call(dispatcher, "knowledge_search", query="x")).status == "error"
    assert (len(tools.sent), len(retriever.sent)) == (SENT_AT_MOST, SENT_AT_MOST)


async def test_a_call_that_hangs_after_it_was_made_again_still_ends_in_its_time() -> None:
    class Dying(Tools):
        async def answer(self, key: str) -> None:
            self.sent.append(key)
            await asyncio.sleep(4)
            raise GONE

    tools = Dying()
    begun = asyncio.get_running_loop().time()
    assert (await _call(_dispatcher(tools), "look")).status == "timeout"
    assert asyncio.get_running_loop().time() - begun == pytest.approx(2 * 3 + 5 + 1)
    assert len(tools.sent) == 3


async def test_a_call_with_an_effect_is_sent_once_whatever_happens() -> None:
    for failure in (GONE, RetrieverUnavailable("gone"), StoreUnavailable("gone"), Overloaded("full")):
        tools = Tools()
        tools.failure, tools.failures = failure, 1
        assert (await _call(_dispatcher(tools), "deed")).status != "ok"
        assert tools.sent == [KEY]


@pytest.mark.parametrize("failure", [Overloaded("full"), StoreUnavailable("Milvus did not answer")])
async def test_what_is_no_replicas_death_is_not_sent_again(failure: ServeAppError) -> None:
    tools, retriever = Tools(), Retriever()
    tools.failure = retriever.failure = failure
    dispatcher = _dispatcher(tools, retriever)
    assert (await _call(dispatcher, "look")).status == "error"
    assert (await _call(dispatcher, "knowledge_search", query="x")).status == "error"
    assert (len(tools.sent), len(retriever.sent)) == (1, 1)


async def test_a_tool_that_is_not_in_the_list_has_no_effect_and_a_short_time() -> None:
    dispatcher = _dispatcher(Tools())
    assert dispatcher.effect("ghost") == "effect"  # nobody can say before the list is there
    await dispatcher.specs()
    begun = asyncio.get_running_loop().time()
    assert dispatcher.effect("ghost") == "pure"
    assert (await _call(dispatcher, "ghost")).status == "timeout"
    assert asyncio.get_running_loop().time() - begun == pytest.approx(1)


async def test_what_a_second_call_does_is_told_by_the_list() -> None:
    dispatcher = _dispatcher(Tools())
    await dispatcher.specs()
    effects = {name: dispatcher.effect(name) for name in ("look", "save", "deed", "knowledge_search")}
    assert effects == {"look": "pure", "save": "idempotent", "deed": "effect", "knowledge_search": "pure"}


@pytest.mark.parametrize("failure", [GONE, Overloaded("full")])
async def test_the_last_known_list_holds_while_nobody_answers(failure: ServeAppError) -> None:
    tools = Tools()
    dispatcher = _dispatcher(tools)
    known = await dispatcher.specs()
    tools.absent = failure
    for _ in range(3):
        await asyncio.sleep(SPECS_TTL_S)
        assert await dispatcher.specs() == known


async def test_the_first_turns_wait_a_moment_for_the_list() -> None:
    tools = Tools()
    dispatcher = _dispatcher(tools)
    tools.absent = GONE
    turns = asyncio.gather(*(dispatcher.specs() for _ in range(20)))
    await asyncio.sleep(FIRST_LOAD_S - 1)
    tools.absent = None
    assert all(await turns)


async def test_a_list_that_was_loaded_before_the_first_turn_is_not_waited_for() -> None:
    tools = Tools()
    dispatcher = _dispatcher(tools)
    await dispatcher.prepare(20)
    tools.absent = GONE
    begun = asyncio.get_running_loop().time()
    assert await dispatcher.specs()
    assert asyncio.get_running_loop().time() == begun


async def test_a_process_starts_without_a_list_where_no_tools_answer(captured_logs: CapturedLogs) -> None:
    tools = Tools()
    dispatcher = _dispatcher(tools)
    tools.absent = GONE
    begun = asyncio.get_running_loop().time()
    await dispatcher.prepare(20)
    assert asyncio.get_running_loop().time() - begun == pytest.approx(20, abs=0.2)
    assert captured_logs.of("tools_not_loaded")
    tools.absent = None
    assert await dispatcher.specs()


async def test_the_schemas_are_the_same_object_until_the_tools_change() -> None:
    tools = Tools()
    dispatcher = _dispatcher(tools)
    await dispatcher.specs()
    first = dispatcher.schemas
    await dispatcher._load()
    assert dispatcher.schemas is first, "whoever has adapted them need not do it again"
    tools.ready = False
    await dispatcher._load()
    assert dispatcher.schemas is not first


async def test_turns_without_a_list_fail_together_and_not_one_after_the_other() -> None:
    tools = Tools()
    dispatcher = _dispatcher(tools)
    tools.absent = GONE
    begun = asyncio.get_running_loop().time()
    failures = await asyncio.gather(*(dispatcher.specs() for _ in range(20)), return_exceptions=True)
    assert failures == [GONE] * 20
    assert asyncio.get_running_loop().time() - begun == pytest.approx(FIRST_LOAD_S, abs=0.2)


async def test_the_list_is_asked_for_once_by_all_turns_of_a_while() -> None:
    tools = Tools()
    dispatcher = _dispatcher(tools)
    await asyncio.gather(*(dispatcher.specs() for _ in range(20)))
    assert tools.spec_calls == 1
    await asyncio.sleep(SPECS_TTL_S)
    await asyncio.gather(*(dispatcher.specs() for _ in range(20)))
    await asyncio.sleep(0)
    assert tools.spec_calls == 2


async def test_no_turn_waits_for_a_list_that_is_told_late() -> None:
    class Slow(Tools):
        async def specs(self) -> list[ToolSpec]:
            await asyncio.sleep(2)
            return await super().specs()

    tools = Slow()
    dispatcher = _dispatcher(tools)
    known = await dispatcher.specs()
    tools.ready = False
    await asyncio.sleep(SPECS_TTL_S)
    begun = asyncio.get_running_loop().time()
    assert await dispatcher.specs() == known
    assert asyncio.get_running_loop().time() == begun
    await asyncio.sleep(3)
    assert len(await dispatcher.specs()) == len(known) - 1


async def test_a_call_that_hangs_is_given_the_time_of_its_standby_too() -> None:
    tools = Tools()
    tools.standby_s = 7
    begun = asyncio.get_running_loop().time()
    await _call(_dispatcher(tools), "look")
    assert asyncio.get_running_loop().time() - begun == pytest.approx(2 * 3 + 5 + 7 + 1)


async def _spent(tools: Tools, budget: RetryBudget, name: str = "look") -> int:
    """What one call takes of the budget."""
    dispatcher = _dispatcher(tools)
    await dispatcher.specs()
    before = budget.left
    await dispatcher.call(CONTEXT, ToolRequest(id="c", name=name, arguments={}), KEY, budget)
    return before - budget.left


@pytest.mark.parametrize(
    ("status", "attempts", "by_standby", "spent"),
    [
        ("ok", 1, 0, 0),
        ("ok", 2, 0, 1),
        ("standby", 3, 1, 1),
        ("standby", 2, 1, 0),
        ("standby", 1, 1, 0),
        ("timeout", 2, 0, 1),
        ("timeout", 3, 1, 1),
        ("error", 2, 1, 0),
        ("error", 1, 1, 0),
        ("refused", 0, 0, 0),
    ],
)
async def test_a_call_takes_of_the_budget_what_it_used(status: Any, attempts: int, by_standby: int, spent: int) -> None:
    tools = Tools()
    tools.failure, tools.failures = GONE, 0
    tools.result = ToolResult(content="", status=status, attempts=attempts, by_standby=by_standby, elapsed_ms=1)
    assert await _spent(tools, RetryBudget(6)) == spent
    assert tools.granted == [1]


async def test_a_request_without_retries_left_makes_one_attempt_each() -> None:
    tools = Tools()
    tools.failure, tools.failures = GONE, 0
    tools.result = ToolResult(content="", status="timeout", attempts=2, elapsed_ms=1)
    budget = RetryBudget(1)
    assert [await _spent(tools, budget), await _spent(tools, budget)] == [1, 0]
    assert tools.granted == [1, 0]


async def test_a_call_that_nobody_answers_has_used_all_that_it_was_given() -> None:
    tools = Tools()
    budget = RetryBudget(1)
    begun = asyncio.get_running_loop().time()
    assert await _spent(tools, budget) == 1
    assert asyncio.get_running_loop().time() - begun == pytest.approx(2 * 3 + 5 + 1)
    begun = asyncio.get_running_loop().time()
    assert await _spent(tools, budget) == 0
    assert asyncio.get_running_loop().time() - begun == pytest.approx(3 + 1), "one attempt, and a little"


async def test_calls_side_by_side_use_no_retry_twice() -> None:
    tools = Tools()
    budget = RetryBudget(3)
    await asyncio.gather(*(_spent(tools, budget) for _ in range(5)))
    assert (sorted(each or 0 for each in tools.granted), budget.left) == ([0, 0, 1, 1, 1], 0)


async def test_a_tool_that_is_away_is_told_of_as_it_was_and_one_that_was_never_there_is_not() -> None:
    tools = Tools()
    tools.parameters = {"type": "object"}
    dispatcher = _dispatcher(tools)
    assert len(await dispatcher.specs()) == 4
    tools.ready = False
    for parameters, named in (({"type": "object"}, ["look"]), ({}, [])):
        tools.parameters = parameters
        await asyncio.sleep(SPECS_TTL_S)
        await dispatcher.specs()
        await asyncio.sleep(0)
        assert [spec.name for spec in await dispatcher.specs()] == [*named, "save", "deed", "knowledge_search"]
        assert dispatcher.effect("look") == "pure"


async def test_a_tool_that_is_away_is_missing_in_answers_that_asked_for_it() -> None:
    tools = Tools()
    tools.failures, tools.failure = 0, GONE
    tools.result = ToolResult.refused("look", "it is not available now")
    dispatcher = _dispatcher(tools)
    await dispatcher.specs()
    outcome = await dispatcher.call(CONTEXT, ToolRequest(id="c", name="look", arguments={}), KEY, RetryBudget(6))
    assert outcome.missing == "tool:look"


async def test_a_list_of_tools_that_cannot_be_read_leaves_the_last_one_and_is_asked_for_again() -> None:
    tools = Tools()
    dispatcher = _dispatcher(tools)
    known = await dispatcher.specs()
    for _ in range(2):
        tools.absent = ValueError("poison")  # type: ignore[assignment]  # a fault that nobody foresaw
        await asyncio.sleep(SPECS_TTL_S + 1)
        assert await dispatcher.specs() == known
        await asyncio.sleep(0.1)
    assert tools.spec_calls == 3
