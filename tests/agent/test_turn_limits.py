"""Turns whose model gives no usable reply, or does not come to an end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from agent_process import NAMES, context, dying_store, killed, malformed, reply

from serve_app.agent.prompts import BASIC_ANSWER, EMPTY_REPLY
from serve_app.values import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_process import AgentProcess
    from langchain_core.messages import AIMessage

    Open = Callable[..., AgentProcess]

TOOLS = len(NAMES) + 1
BASICALLY = reply("What I know.")
STREAMING = pytest.mark.parametrize("stream", [False, True])
REQUEST = ChatRequest(user_input="hello", session_id="s")


def unknown() -> AIMessage:
    return reply("", ("no_such_tool", {"text": "x"}))


@STREAMING
@pytest.mark.parametrize("bad", [malformed("echo"), unknown(), reply(" ")], ids=["malformed", "unknown", "empty"])
async def test_bad_output_is_told_to_the_model_once_and_mended_it_degrades_nothing(
    start_agent: Open, bad: AIMessage, *, stream: bool
) -> None:
    agent = start_agent(bad, reply("", ("echo", {"text": "x"})), reply("Good."))
    answer = await agent.ask(stream=stream)
    assert (answer.result.strip(), answer.status, answer.degraded) == ("Good.", "success", [])
    assert agent.model.tools_bound == [TOOLS] * 3


@STREAMING
@pytest.mark.parametrize("second", [malformed("echo"), unknown(), reply("")], ids=["malformed", "unknown", "empty"])
@pytest.mark.parametrize("first", [malformed("echo"), unknown(), reply(" ")], ids=["malformed", "unknown", "empty"])
async def test_bad_output_that_comes_again_leads_to_the_basic_answer(
    start_agent: Open, first: AIMessage, second: AIMessage, *, stream: bool
) -> None:
    agent = start_agent(first, second, BASICALLY)
    answer = await agent.ask(stream=stream)
    assert (answer.result.strip(), answer.status, answer.degraded) == ("What I know.", "degraded", ["model"])
    assert agent.model.tools_bound == [TOOLS, TOOLS, 0]
    assert agent.model.requests[2][0].text.endswith(BASIC_ANSWER)
    assert not agent.model.requests[1][0].text.endswith(BASIC_ANSWER)


async def test_an_empty_answer_is_told_in_the_next_call_only(start_agent: Open) -> None:
    agent = start_agent(reply(""), reply("", ("echo", {"text": "x"})), reply("Good."))
    await agent.ask()
    assert [messages[0].text.endswith(EMPTY_REPLY) for messages in agent.model.requests] == [False, True, False]
    assert agent.kinds(1) == ["system", "human"]


async def test_arguments_that_a_tool_refuses_are_the_models_to_mend_as_often_as_it_needs(start_agent: Open) -> None:
    tries = [reply("", ("echo", {"txt": word})) for word in ("a", "b", "c")]
    agent = start_agent(*tries, reply("", ("echo", {"text": "d"})), reply("Good."))
    assert (await agent.ask()).degraded == []


async def test_a_malformed_call_is_never_made(start_agent: Open) -> None:
    bad = malformed("pay").model_copy(update={"tool_calls": reply("", ("echo", {"text": "x"})).tool_calls})
    agent = start_agent(bad, reply("Good."))
    answer = await agent.ask()
    assert [(call.name, call.status, call.attempts) for call in answer.tool_calls] == [
        ("echo", "ok", 1),
        ("pay", "error", 0),
    ]
    assert [text for text, _ in agent.tools.made] == ["x"]
    assert agent.tool_messages(1)[1].text == "error: wrong arguments for pay: not a JSON object"


@STREAMING
@pytest.mark.parametrize("written", ['{"text": "x', '["x"]', "x"])
async def test_a_call_whose_arguments_break_off_is_malformed_though_a_part_of_them_could_be_read(
    start_agent: Open, written: str, *, stream: bool
) -> None:
    agent = start_agent(malformed("echo", written), reply("Good."))
    answer = await agent.ask(stream=stream)
    assert [(call.status, call.attempts) for call in answer.tool_calls] == [("error", 0)]
    assert agent.tools.made == []


async def test_a_malformed_call_is_not_made_by_another_process_either(start_agent: Open) -> None:
    turn_context = context()
    first = start_agent(malformed("broken"), store=dying_store(2))
    assert await killed(first, turn_context, REQUEST)
    second = start_agent(unknown(), BASICALLY)
    answer = (await second.follow(turn_context, REQUEST, after=2))[-1].data
    assert [call.attempts for call in answer.tool_calls] == [0, 0]
    assert (answer.result, answer.degraded) == ("What I know.", ["model"])


async def test_an_empty_answer_counts_in_another_process_too(start_agent: Open) -> None:
    turn_context = context()
    first = start_agent(reply(" "), reply("", ("echo", {"text": "x"})), store=dying_store(2))
    assert await killed(first, turn_context, REQUEST)
    second = start_agent(reply(""), BASICALLY)
    answer = (await second.follow(turn_context, REQUEST, after=2))[-1].data
    assert (answer.result, answer.degraded) == ("What I know.", ["model"])
    assert second.model.tools_bound == [TOOLS, 0]
    assert answer.usage.input_tokens == 40, "the empty answers are counted"


async def test_one_call_that_is_made_three_times_is_a_loop(start_agent: Open) -> None:
    again = reply("", ("echo", {"text": "again"}))
    agent = start_agent(again, again, again, BASICALLY)
    answer = await agent.ask()
    assert (answer.result, answer.degraded, len(answer.tool_calls)) == ("What I know.", ["model"], 3)
    assert agent.model.tools_bound == [TOOLS] * 3 + [0]


async def test_calls_that_differ_are_no_loop(start_agent: Open) -> None:
    steps = [reply("", ("echo", {"text": str(number)})) for number in range(6)]
    assert (await start_agent(*steps, reply("Good.")).ask()).degraded == []


async def test_steps_are_limited_and_an_answer_that_was_forced_says_so(start_agent: Open) -> None:
    steps = [reply("", ("echo", {"text": str(number)})) for number in range(2)]
    agent = start_agent(*steps, BASICALLY, max_steps=3)
    answer = await agent.ask()
    assert (answer.result, answer.degraded) == ("What I know.", ["model"])


async def test_a_turn_that_may_have_no_tools_lacks_nothing(start_agent: Open) -> None:
    agent = start_agent(reply("Hi."), max_steps=1)
    assert (await agent.ask()).degraded == []
    assert agent.model.tools_bound == [0]


async def test_tool_calls_are_limited_and_those_beyond_are_refused(start_agent: Open) -> None:
    calls = [("echo", {"text": str(number)}) for number in range(6)]
    agent = start_agent(reply("", *calls[:2]), reply("", *calls[2:]), BASICALLY, max_tool_calls=4)
    answer = await agent.ask()
    assert [call.status for call in answer.tool_calls] == ["ok"] * 4 + ["refused"] * 2
    assert (answer.result, answer.degraded) == ("What I know.", ["model", "tool:echo"])
    assert sorted(text for text, _ in agent.tools.made) == ["0", "1", "2", "3"]


async def test_tokens_are_limited_over_all_calls_of_a_turn(start_agent: Open) -> None:
    costly = reply("", ("echo", {"text": "x"}))
    agent = start_agent(costly, BASICALLY, max_tokens=1000)
    agent.model.tokens = 600
    answer = await agent.ask()
    assert (answer.result, answer.degraded, answer.usage.input_tokens) == ("What I know.", [], 1200)
    lower = start_agent(costly, BASICALLY, max_tokens=1000)
    lower.model.tokens = 1000
    answer = await lower.ask()
    assert (answer.degraded, lower.model.tools_bound) == (["model"], [TOOLS, 0])
