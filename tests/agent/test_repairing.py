"""What becomes of a turn whose model says nothing of use, or does not come to an end?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from desk import NAMES, context, killed, malformed, mortal, reply

from serve_app.agent.guardrails import BASIC, EMPTY
from serve_app.values import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from desk import Desk
    from langchain_core.messages import AIMessage

    Open = Callable[..., Desk]

TOOLS = len(NAMES) + 1
BASICALLY = reply("What I know.")
STREAMING = pytest.mark.parametrize("stream", [False, True])
REQUEST = ChatRequest(user_input="hello", session_id="s")


def unknown() -> AIMessage:
    return reply("", ("no_such_tool", {"text": "x"}))


@STREAMING
@pytest.mark.parametrize("bad", [malformed("echo"), unknown(), reply(" ")], ids=["malformed", "unknown", "empty"])
async def test_bad_output_is_told_to_the_model_once_and_mended_it_degrades_nothing(
    open_desk: Open, bad: AIMessage, *, stream: bool
) -> None:
    desk = open_desk(bad, reply("", ("echo", {"text": "x"})), reply("Good."))
    answer = await desk.ask(stream=stream)
    assert (answer.result.strip(), answer.status, answer.degraded) == ("Good.", "success", [])
    assert desk.model.tools_bound == [TOOLS] * 3


@STREAMING
@pytest.mark.parametrize("second", [malformed("echo"), unknown(), reply("")], ids=["malformed", "unknown", "empty"])
@pytest.mark.parametrize("first", [malformed("echo"), unknown(), reply(" ")], ids=["malformed", "unknown", "empty"])
async def test_bad_output_that_comes_again_leads_to_the_basic_answer(
    open_desk: Open, first: AIMessage, second: AIMessage, *, stream: bool
) -> None:
    desk = open_desk(first, second, BASICALLY)
    answer = await desk.ask(stream=stream)
    assert (answer.result.strip(), answer.status, answer.degraded) == ("What I know.", "degraded", ["model"])
    assert desk.model.tools_bound == [TOOLS, TOOLS, 0]
    assert desk.model.asked[2][0].text.endswith(BASIC)
    assert not desk.model.asked[1][0].text.endswith(BASIC)


async def test_an_empty_answer_is_told_in_the_next_call_only(open_desk: Open) -> None:
    desk = open_desk(reply(""), reply("", ("echo", {"text": "x"})), reply("Good."))
    await desk.ask()
    assert [asked[0].text.endswith(EMPTY) for asked in desk.model.asked] == [False, True, False]
    assert desk.kinds(1) == ["system", "human"]


async def test_arguments_that_a_tool_refuses_are_the_models_to_mend_as_often_as_it_needs(open_desk: Open) -> None:
    tries = [reply("", ("echo", {"txt": word})) for word in ("a", "b", "c")]
    desk = open_desk(*tries, reply("", ("echo", {"text": "d"})), reply("Good."))
    assert (await desk.ask()).degraded == []


async def test_a_malformed_call_is_never_made(open_desk: Open) -> None:
    bad = malformed("pay").model_copy(update={"tool_calls": reply("", ("echo", {"text": "x"})).tool_calls})
    desk = open_desk(bad, reply("Good."))
    answer = await desk.ask()
    assert [(call.name, call.status, call.attempts) for call in answer.tool_calls] == [
        ("echo", "ok", 1),
        ("pay", "error", 0),
    ]
    assert [text for text, _ in desk.tools.made] == ["x"]
    assert desk.tool_messages(1)[1].text == "error: wrong arguments for pay: not a JSON object"


@STREAMING
@pytest.mark.parametrize("written", ['{"text": "x', '["x"]', "x"])
async def test_a_call_whose_arguments_break_off_is_malformed_though_a_part_of_them_could_be_read(
    open_desk: Open, written: str, *, stream: bool
) -> None:
    desk = open_desk(malformed("echo", written), reply("Good."))
    answer = await desk.ask(stream=stream)
    assert [(call.status, call.attempts) for call in answer.tool_calls] == [("error", 0)]
    assert desk.tools.made == []


async def test_a_malformed_call_is_not_made_by_another_process_either(open_desk: Open) -> None:
    asked = context()
    first = open_desk(malformed("broken"), registry=mortal(2))
    assert await killed(first, asked, REQUEST)
    second = open_desk(unknown(), BASICALLY)
    answer = (await second.follow(asked, REQUEST, after=2))[-1].data
    assert [call.attempts for call in answer.tool_calls] == [0, 0]
    assert (answer.result, answer.degraded) == ("What I know.", ["model"])


async def test_an_empty_answer_counts_in_another_process_too(open_desk: Open) -> None:
    asked = context()
    first = open_desk(reply(" "), reply("", ("echo", {"text": "x"})), registry=mortal(2))
    assert await killed(first, asked, REQUEST)
    second = open_desk(reply(""), BASICALLY)
    answer = (await second.follow(asked, REQUEST, after=2))[-1].data
    assert (answer.result, answer.degraded) == ("What I know.", ["model"])
    assert second.model.tools_bound == [TOOLS, 0]
    assert answer.usage.input_tokens == 40, "the empty answers are counted"


async def test_one_call_that_is_made_three_times_is_a_loop(open_desk: Open) -> None:
    again = reply("", ("echo", {"text": "again"}))
    desk = open_desk(again, again, again, BASICALLY)
    answer = await desk.ask()
    assert (answer.result, answer.degraded, len(answer.tool_calls)) == ("What I know.", ["model"], 3)
    assert desk.model.tools_bound == [TOOLS] * 3 + [0]


async def test_calls_that_differ_are_no_loop(open_desk: Open) -> None:
    steps = [reply("", ("echo", {"text": str(number)})) for number in range(6)]
    assert (await open_desk(*steps, reply("Good.")).ask()).degraded == []


async def test_steps_are_limited_and_an_answer_that_was_forced_says_so(open_desk: Open) -> None:
    steps = [reply("", ("echo", {"text": str(number)})) for number in range(2)]
    desk = open_desk(*steps, BASICALLY, max_steps=3)
    answer = await desk.ask()
    assert (answer.result, answer.degraded) == ("What I know.", ["model"])


async def test_a_turn_that_may_have_no_tools_lacks_nothing(open_desk: Open) -> None:
    desk = open_desk(reply("Hi."), max_steps=1)
    assert (await desk.ask()).degraded == []
    assert desk.model.tools_bound == [0]


async def test_tool_calls_are_limited_and_those_beyond_are_refused(open_desk: Open) -> None:
    calls = [("echo", {"text": str(number)}) for number in range(6)]
    desk = open_desk(reply("", *calls[:2]), reply("", *calls[2:]), BASICALLY, max_tool_calls=4)
    answer = await desk.ask()
    assert [call.status for call in answer.tool_calls] == ["ok"] * 4 + ["refused"] * 2
    assert (answer.result, answer.degraded) == ("What I know.", ["model", "tool:echo"])
    assert sorted(text for text, _ in desk.tools.made) == ["0", "1", "2", "3"]


async def test_tokens_are_limited_over_all_calls_of_a_turn(open_desk: Open) -> None:
    costly = reply("", ("echo", {"text": "x"}))
    desk = open_desk(costly, BASICALLY, max_tokens=1000)
    desk.model.tokens = 600
    answer = await desk.ask()
    assert (answer.result, answer.degraded, answer.usage.input_tokens) == ("What I know.", [], 1200)
    lower = open_desk(costly, BASICALLY, max_tokens=1000)
    lower.model.tokens = 1000
    answer = await lower.ask()
    assert (answer.degraded, lower.model.tools_bound) == (["model"], [TOOLS, 0])
