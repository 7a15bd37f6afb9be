"""Metrics of tool calls: each call counted by its status, without labels that models invent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from agent_process import AgentProcess, context, dying_store, killed, malformed, reply

from serve_app.observability.metric_catalogue import (
    RETRIEVAL_EMPTY,
    RETRIEVAL_PASSAGES,
    RETRIEVAL_S,
    RETRIEVALS,
    TOOL_ATTEMPTS,
    TOOL_CALLS,
    TOOL_S,
    TURNS,
)
from serve_app.values import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve_app.observability.metrics import InMemoryMetrics


def calls(metrics: InMemoryMetrics) -> dict[tuple[str, str], float]:
    return {(tool[1], how[1]): count for (tool, how), count in metrics.counted[TOOL_CALLS].items()}


def searched(query: str) -> Any:
    return reply("", ("knowledge_search", {"query": query}))


async def test_calls_are_counted_by_tool_and_status_with_their_attempts(
    start_agent: Callable[..., AgentProcess],
) -> None:
    step = reply("", ("echo", {"text": "a"}), ("echo", {"text": "b"}), ("broken", {}), ("echo", {}))
    agent = start_agent(step, reply("Done."))
    await agent.ask()
    assert calls(agent.metrics) == {("echo", "ok"): 2, ("broken", "error"): 1, ("echo", "error"): 1}
    assert agent.metrics.of(TOOL_ATTEMPTS) == {"echo": 2, "broken": 2}
    assert agent.metrics.of(TOOL_S) == {"echo": 2, "broken": 1}
    assert not agent.metrics.of(RETRIEVALS)


async def test_names_that_a_model_invents_are_one_series(start_agent: Callable[..., AgentProcess]) -> None:
    agent = start_agent(reply("", ("zap", {}), ("zip", {})), reply("Done."))
    await agent.ask()
    assert calls(agent.metrics) == {("unknown", "error"): 2}
    assert not agent.metrics.of(TOOL_ATTEMPTS)


async def test_a_call_that_is_refused_or_malformed_is_counted_without_an_attempt(
    start_agent: Callable[..., AgentProcess],
) -> None:
    agent = start_agent(
        malformed("echo"), reply("", ("echo", {"text": "a"}), ("echo", {"text": "b"})), max_tool_calls=2
    )
    agent.model.replies.append(reply("Done."))
    await agent.ask()
    assert calls(agent.metrics) == {("echo", "error"): 1, ("echo", "ok"): 1, ("echo", "refused"): 1}
    assert agent.metrics.of(TOOL_ATTEMPTS) == {"echo": 1}
    assert agent.metrics.of(TOOL_S) == {"echo": 1}


@pytest.mark.parametrize(
    ("query", "outcome", "passages", "empty"),
    [
        ("kettle", "ok", 2, {}),
        ("nothing", "ok", 0, {(): 1}),
        ("standby", "standby", 2, {}),
        ("words", "lexical_only", 2, {}),
    ],
)
async def test_a_search_is_counted_by_how_it_was_answered(
    start_agent: Callable[..., AgentProcess], query: str, outcome: str, passages: int, empty: dict[Any, int]
) -> None:
    agent = start_agent(searched(query), reply("Done."))
    await agent.ask()
    assert agent.metrics.of(RETRIEVALS) == {outcome: 1}
    assert agent.metrics.of(RETRIEVAL_S) == {(): 1}
    assert agent.metrics.of(RETRIEVAL_PASSAGES) == {(): passages}
    assert agent.metrics.of(RETRIEVAL_EMPTY) == empty
    assert not calls(agent.metrics)


async def test_a_search_that_fails_found_nothing_and_is_not_empty(start_agent: Callable[..., AgentProcess]) -> None:
    agent = start_agent(searched("fail"), reply("Done."))
    await agent.ask()
    assert agent.metrics.of(RETRIEVALS) == {"error": 1}
    assert not agent.metrics.of(RETRIEVAL_PASSAGES)
    assert not agent.metrics.of(RETRIEVAL_EMPTY)


async def test_a_search_that_was_not_made_is_no_search(start_agent: Callable[..., AgentProcess]) -> None:
    agent = start_agent(reply("", ("knowledge_search", {})), reply("Done."))
    await agent.ask()
    assert calls(agent.metrics) == {("knowledge_search", "error"): 1}
    assert not agent.metrics.of(RETRIEVALS)


async def test_a_step_that_a_dead_process_has_finished_is_not_counted_again(
    start_agent: Callable[..., AgentProcess],
) -> None:
    steps = [reply("", ("echo", {"text": "a"})), reply("", ("echo", {"text": "b"})), reply("Done.")]
    turn_context, request = context(), ChatRequest(user_input="hello", session_id="s")
    first = start_agent(*steps, store=dying_store(3))  # the run, the first call, its end
    assert await killed(first, turn_context, request)
    second = start_agent(*steps[1:])
    await second.follow(turn_context, request, after=3)
    assert calls(first.metrics) == {("echo", "ok"): 1}
    assert calls(second.metrics) == {("echo", "ok"): 1}
    assert [sum(each.metrics.of(TURNS).values()) for each in (first, second)] == [0, 1]
