"""Turns that go on with a fallback model, and answers that say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from agent_process import Broken, context, dying_store, killed, reply

from serve_app.values import ChatRequest, Token

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_process import AgentProcess

    Open = Callable[..., AgentProcess]

STREAMING = pytest.mark.parametrize("stream", [False, True])
CALLING = reply("", ("echo", {"text": "x"}))
REQUEST = ChatRequest(user_input="hello", session_id="s")


@STREAMING
async def test_the_answer_of_the_first_model_names_it_and_lacks_nothing(start_agent: Open, *, stream: bool) -> None:
    answer = await start_agent(reply("Hi."), fallback=[]).ask(stream=stream)
    assert (answer.model, answer.status, answer.degraded) == ("m0", "success", [])


@STREAMING
async def test_the_answer_of_a_fallback_names_it_and_is_degraded(start_agent: Open, *, stream: bool) -> None:
    answer = await start_agent(Broken(""), fallback=[reply("Hi.")]).ask(stream=stream)
    assert (answer.result.strip(), answer.model) == ("Hi.", "m1")
    assert (answer.status, answer.degraded) == ("degraded", ["model"])


@STREAMING
async def test_a_fallback_that_made_an_earlier_step_degrades_the_answer_too(start_agent: Open, *, stream: bool) -> None:
    answer = await start_agent(Broken(""), reply("Hi."), fallback=[CALLING]).ask(stream=stream)
    assert (answer.model, answer.degraded) == ("m0", ["model"])


async def test_another_process_knows_that_a_fallback_made_a_step(start_agent: Open) -> None:
    turn_context = context()
    first = start_agent(Broken(""), fallback=[CALLING], store=dying_store(3))
    assert await killed(first, turn_context, REQUEST)
    second = start_agent(reply("Hi."), fallback=[])
    answer = (await second.follow(turn_context, REQUEST, after=3))[-1].data
    assert (answer.model, answer.degraded) == ("m0", ["model"])


async def test_a_stream_that_breaks_is_restarted_by_the_next_model(start_agent: Open) -> None:
    agent = start_agent(Broken("The answer is"), fallback=[reply("It is 42.")])
    answer = await agent.ask(stream=True)
    tokens = [each for each in agent.emitted if isinstance(each, Token)]
    restarts = [place for place, token in enumerate(tokens) if token.restart]
    assert len(restarts) == 1
    assert "".join(token.text for token in tokens[: restarts[0]]) == "The answer is "
    assert "".join(token.text for token in tokens[restarts[0] :]) == answer.result == "It is 42. "
    assert (answer.model, answer.degraded) == ("m1", ["model"])


async def test_text_that_broke_off_before_a_tool_call_is_restarted_by_the_answer(start_agent: Open) -> None:
    agent = start_agent(Broken("The answer is"), reply("42."), fallback=[CALLING])
    answer = await agent.ask(stream=True)
    shown = ""
    for token in (each for each in agent.emitted if isinstance(each, Token)):
        shown = token.text if token.restart else shown + token.text
    assert shown == answer.result == "42. "
    assert [call.status for call in answer.tool_calls] == ["ok"]


@STREAMING
async def test_when_every_model_fails_so_does_the_turn(start_agent: Open, *, stream: bool) -> None:
    agent = start_agent(Broken(""), fallback=[Broken("")])
    failure = await agent.fail(stream=stream)
    assert (failure.code, failure.retryable) == ("model_unavailable", True)
