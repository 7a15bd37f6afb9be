"""Model calls and answers of a turn, whatever a real model endpoint does.

Each turn is one of two model steps with a tool call between them, where the first model is well.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from serve_app.config import ModelSettings
from serve_app.llm.models import build_model
from serve_app.values import Token

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_process import AgentProcess
    from stub_server import Stub

    Open = Callable[..., AgentProcess]

STREAMING = pytest.mark.parametrize("stream", [False, True])
WELL = "Hello from the stub."
MANY = 50


class Upstream:
    """A agent whose models are on a real server; their names are those of no other test."""

    def __init__(self, start_agent: Open, stub: Stub, moods: list[str], fallback: str = "well", **changed: Any) -> None:
        self.stub = stub
        self.names = f"primary-{uuid4().hex}", f"fallback-{uuid4().hex}"
        stub.moods[self.names[0]], stub.moods[self.names[1]] = list(moods), [fallback] * MANY
        max_wait_s = 0.8 if {"silent", "stalls"} & {*moods} else 9
        models = [{"name": f"openai:{name}", "base_url": stub.url, "timeout_s": 9} for name in self.names]
        models[0]["timeout_s"] = max_wait_s
        settings = ModelSettings.model_validate({**models[0], "fallbacks": models[1:], **changed})
        self.agent = start_agent(fallback=build_model(settings))

    @property
    def calls(self) -> tuple[int, ...]:
        return tuple(self.stub.count_requests(name) for name in self.names)


@STREAMING
@pytest.mark.parametrize(
    ("mood", "calls"),
    [
        ("rate-limited@0", (4, 2)),
        ("rate-limited@30", (2, 2)),
        ("broken@0", (4, 2)),
        ("garbage", (4, 2)),
        ("silent", (2, 2)),
        ("wrong-key", (2, 2)),
    ],
)
async def test_a_first_model_that_fails_costs_each_step_its_tries_and_one_of_the_fallback(
    start_agent: Open, stub: Stub, mood: str, calls: tuple[int, int], *, stream: bool
) -> None:
    upstream, begun = Upstream(start_agent, stub, [mood] * MANY), time.monotonic()
    answer = await upstream.agent.ask(stream=stream)
    assert (answer.result, answer.status, answer.degraded) == (WELL, "degraded", ["model"])
    assert answer.model == f"openai:{upstream.names[1]}"
    assert [(call.name, call.status) for call in answer.tool_calls] == [("order_query", "ok")]
    assert upstream.calls == calls
    assert time.monotonic() - begun < 6


@STREAMING
async def test_a_first_model_that_is_left_alone_costs_no_call(start_agent: Open, stub: Stub, *, stream: bool) -> None:
    upstream = Upstream(start_agent, stub, ["broken@0"] * MANY, breaker_failures=2)
    await upstream.agent.ask(stream=stream)
    await upstream.agent.ask(stream=stream)
    assert upstream.calls == (2, 4)


@pytest.mark.parametrize("mood", ["cut", "error-frame", "garbage-frame", "stalls"])
async def test_a_stream_that_breaks_is_told_anew_by_the_next_try(start_agent: Open, stub: Stub, mood: str) -> None:
    upstream = Upstream(start_agent, stub, ["well", *[mood] * MANY], attempts=1)
    answer = await upstream.agent.ask(stream=True)
    assert (answer.result, answer.degraded) == (WELL, ["model"])
    shown, restarts = "", 0
    for token in (each for each in upstream.agent.emitted if isinstance(each, Token)):
        shown = token.text if token.restart else shown + token.text
        restarts += token.restart
    assert (shown, restarts) == (WELL, 1)
    assert upstream.calls == (2, 1)


@pytest.mark.parametrize("mood", ["cut", "error-frame", "garbage-frame", "stalls"])
async def test_a_tool_call_whose_stream_breaks_is_made_once_and_whole(start_agent: Open, stub: Stub, mood: str) -> None:
    upstream = Upstream(start_agent, stub, [mood], attempts=1)
    answer = await upstream.agent.ask(stream=True)
    assert [(call.arguments, call.status) for call in answer.tool_calls] == [({"order_id": "OD-1"}, "ok")]
    assert (answer.result, answer.degraded) == (WELL, ["model"])
    assert upstream.calls == (2, 1)


@STREAMING
@pytest.mark.parametrize(
    ("moods", "expected"),
    [
        (["malformed"], (["error"], [], 2)),
        (["well", "blank"], (["ok"], [], 3)),
        (["malformed", "blank"], (["error"], ["model"], 3)),
        (["well", "blank", "blank"], (["ok"], [], 4)),
    ],
)
async def test_bad_output_costs_one_call_to_mend_and_then_the_basic_answer(
    start_agent: Open, stub: Stub, moods: list[str], expected: tuple[list[str], list[str], int], *, stream: bool
) -> None:
    statuses, degraded, calls = expected
    upstream = Upstream(start_agent, stub, moods)
    answer = await upstream.agent.ask(stream=stream)
    assert [call.status for call in answer.tool_calls] == statuses
    assert (answer.result, answer.degraded) == (WELL, degraded)
    assert upstream.calls == (calls, 0)


@STREAMING
async def test_for_a_model_that_says_nothing_whatever_it_is_told_the_fallback_answers(
    start_agent: Open, stub: Stub, *, stream: bool
) -> None:
    upstream = Upstream(start_agent, stub, ["blank"] * MANY)
    answer = await upstream.agent.ask(stream=stream)
    assert (answer.result, answer.degraded) == (WELL, ["model"])
    assert upstream.calls == (4, 1)


@STREAMING
async def test_models_that_all_say_nothing_are_out_of_reach(start_agent: Open, stub: Stub, *, stream: bool) -> None:
    upstream = Upstream(start_agent, stub, ["blank"] * MANY, fallback="blank")
    assert (await upstream.agent.fail(stream=stream)).code == "model_unavailable"


@STREAMING
async def test_with_everything_down_the_turn_fails_and_says_when_to_come_back(
    start_agent: Open, stub: Stub, *, stream: bool
) -> None:
    upstream = Upstream(start_agent, stub, ["rate-limited@40"] * MANY, fallback="broken@20")
    failure = await upstream.agent.fail(stream=stream)
    assert (failure.code, failure.retryable, failure.retry_after_s) == ("model_unavailable", True, 20)
    assert upstream.calls == (1, 1)
