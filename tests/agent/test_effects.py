"""Effects of a turn: remembered, and made only where they can be recorded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from agent_process import Broken, context, dying_store, killed, reply

from serve_app.errors import StoreUnavailable
from serve_app.memory import NO_ANSWER, NO_RESULT, repair_messages
from serve_app.runs.event_log import cancel_run
from serve_app.runs.store import RunStore
from serve_app.stores.redis_keys import RunKeys, SessionKeys
from serve_app.values import Answer, Cancelled, ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_process import AgentProcess
    from redis.asyncio import Redis

    from serve_app.values import Context, RunEvent

    Open = Callable[..., AgentProcess]

KEYS = SessionKeys("default", "s")
REQUEST = ChatRequest(user_input="first", session_id="s")
NO_MORE = Broken("")
"""With which a turn fails."""


class Unrecorded(RunStore):
    async def reserve(self, *given: Any) -> Any:
        raise StoreUnavailable("Redis did not answer")


async def _cancelled(agent: AgentProcess, turn_context: Context) -> list[RunEvent]:
    """What is seen of a run that a client cancels, until it has ended in its process."""
    following = asyncio.create_task(agent.follow(turn_context, REQUEST))
    await agent.tools.begun.wait()
    assert await cancel_run(agent.redis, RunKeys("default", turn_context.run_id), 100)
    return await asyncio.wait_for(following, 2)


async def _remembered(agent: AgentProcess) -> list[list[tuple[str, str]]]:
    exchanges = (
        [] if not await agent.redis.exists(KEYS.exchanges) else (await agent.memory.session(context(), 9)).exchanges
    )
    assert [repair_messages(each.messages) for each in exchanges] == [(each.messages, 0) for each in exchanges]
    return [[(each.role, each.content) for each in one.messages] for one in exchanges]


def _paid(result: str) -> list[tuple[str, str]]:
    return [("user", "first"), ("assistant", ""), ("tool", result), ("assistant", NO_ANSWER)]


async def test_an_effect_that_cannot_be_recorded_is_not_made(start_agent: Open) -> None:
    calls = (("pay", {"text": "x"}), ("save", {"text": "y"}), ("echo", {"text": "z"}))
    agent = start_agent(reply("", *calls), reply("Not paid."), store=Unrecorded, max_wait_s=0.1)
    answer = await agent.ask()
    assert [(call.status, call.attempts) for call in answer.tool_calls] == [("refused", 0), ("ok", 1), ("ok", 1)]
    assert (answer.status, set(answer.degraded) - {"memory"}) == ("degraded", {"tool:pay"})
    assert sorted(text for text, _ in agent.tools.made) == ["y", "z"]
    result = agent.tool_messages(1)[0]
    assert (result.status, "was not called" in result.text) == ("error", True)


async def test_tools_only_look_where_the_requests_key_cannot_be_kept(start_agent: Open) -> None:
    calls = (("pay", {"text": "x"}), ("save", {"text": "y"}), ("echo", {"text": "z"}))
    agent = start_agent(reply("", *calls), reply("Not paid."))
    turn_context = context().model_copy(update={"effects": False})
    *_, last = await agent.follow(turn_context, ChatRequest(user_input="first", session_id="s"))
    assert isinstance(last.data, Answer)
    assert [call.status for call in last.data.tool_calls] == ["refused", "refused", "ok"]
    assert [text for text, _ in agent.tools.made] == ["z"]


async def test_a_call_that_was_refused_and_then_made_degrades_nothing(start_agent: Open) -> None:
    class Late(RunStore):
        refusals = 1

        async def reserve(self, *given: Any) -> Any:
            self.refusals -= 1
            if self.refusals >= 0:
                raise StoreUnavailable("Redis did not answer")
            return await super().reserve(*given)

    pay = reply("", ("pay", {"text": "x"}))
    agent = start_agent(pay, pay, reply("Paid."), store=Late, max_wait_s=0)
    answer = await agent.ask()
    assert [call.status for call in answer.tool_calls] == ["refused", "ok"]
    assert (answer.degraded, len(agent.tools.made)) == ([], 1)


async def test_each_call_of_a_turn_has_a_key_of_its_own(start_agent: Open) -> None:
    twice = reply("", ("save", {"text": "x"}), ("save", {"text": "x"}))
    agent = start_agent(twice, twice, reply("Saved."))
    answer = await agent.ask()
    keys = [key for _, key in agent.tools.made]
    assert sorted(keys) == [f"{answer.run_id}:{step}:{index}" for step in (0, 1) for index in (0, 1)]


@pytest.mark.parametrize("name", ["pay", "save"])
async def test_a_turn_that_fails_after_an_effect_is_remembered(start_agent: Open, name: str) -> None:
    agent = start_agent(reply("", (name, {"text": "x"})), NO_MORE, reply("Two."))
    await agent.fail("first")
    assert await _remembered(agent) == [_paid("x")]
    await agent.ask("second")
    assert agent.kinds(2) == ["system", "human", "ai", "tool", "ai", "human"]


async def test_a_turn_that_fails_without_an_effect_is_not_remembered(start_agent: Open) -> None:
    calls = (("echo", {"text": "x"}), ("knowledge_search", {"query": "a"}))
    agent = start_agent(reply("", *calls), NO_MORE, reply("Two."))
    await agent.fail("first")
    assert await _remembered(agent) == []
    await agent.ask("second")
    assert agent.kinds(2) == ["system", "human"]


async def test_what_was_done_before_the_step_that_failed_is_remembered(start_agent: Open) -> None:
    agent = start_agent(reply("", ("pay", {"text": "x"})), reply("", ("echo", {"text": "y"})), NO_MORE)
    await agent.fail("first")
    assert await _remembered(agent) == [[*_paid("x")[:3], ("assistant", ""), ("tool", "y"), ("assistant", NO_ANSWER)]]


async def test_a_turn_whose_time_runs_out_during_an_effect_is_remembered_without_its_outcome(start_agent: Open) -> None:
    agent = start_agent(reply("", ("pay", {"text": "x"})))
    agent.tools.hang = True
    assert (await agent.fail("first", seconds=0.5)).code == "deadline_exceeded"
    assert await _remembered(agent) == [_paid(NO_RESULT)]


async def test_a_turn_that_is_cancelled_during_an_effect_is_remembered_without_its_outcome(start_agent: Open) -> None:
    agent, turn_context = start_agent(reply("", ("pay", {"text": "x"})), reply("Two.")), context()
    agent.tools.hang = True
    assert not any(event.last for event in await _cancelled(agent, turn_context))
    assert await _remembered(agent) == [_paid(NO_RESULT)]
    log = await agent.store.read_entries(turn_context)
    assert [each.event.data for each in log][-1] == Cancelled(run_id=turn_context.run_id)
    await agent.ask("second")
    assert agent.kinds(1) == ["system", "human", "ai", "tool", "ai", "human"]


async def test_a_turn_that_is_cancelled_without_an_effect_is_not_remembered(start_agent: Open) -> None:
    agent = start_agent(reply("", ("echo", {"text": "x"})), reply("Two."))
    agent.tools.hang = True
    await _cancelled(agent, context())
    assert (await _remembered(agent), await agent.redis.exists(KEYS.lease)) == ([], 0)
    assert (await agent.ask("second")).result == "Two."


async def test_a_turn_that_is_cancelled_after_an_effect_stops_its_model_and_is_remembered(start_agent: Open) -> None:
    agent, turn_context = start_agent(reply("", ("pay", {"text": "x"}))), context()
    following = asyncio.create_task(agent.follow(turn_context, REQUEST))
    await agent.model.hanging.wait()
    await cancel_run(agent.redis, RunKeys("default", turn_context.run_id), 100)
    await asyncio.wait_for(following, 1.5)
    assert agent.model.stopped
    assert await _remembered(agent) == [_paid("x")]


STEPS_AT = {2: 1, 3: 1, 4: 2, 5: 2}
"""How many of the model's steps are in the log below with so many events."""


@pytest.mark.parametrize("last", STEPS_AT)
@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_an_effect_is_remembered_though_its_process_died_and_the_turn_does_not_end_well(
    start_agent: Open, last: int, end: str
) -> None:
    turn_context = context()
    script = [reply("", ("pay", {"text": "x"})), reply("", ("echo", {"text": "y"}))]
    first = start_agent(*script, store=dying_store(last))
    assert await killed(first, turn_context, REQUEST)
    second = start_agent(*script[STEPS_AT[last] :], *([NO_MORE] if end == "failed" else []))
    following = asyncio.create_task(second.follow(turn_context, REQUEST, last))
    if end == "cancelled":
        await second.model.hanging.wait()
        await cancel_run(second.redis, RunKeys("default", turn_context.run_id), 100)
    await asyncio.wait_for(following, 2)
    assert await _remembered(second) == [[*_paid("x")[:3], ("assistant", ""), ("tool", "y"), ("assistant", NO_ANSWER)]]


@pytest.mark.parametrize("name", ["echo", "pay"])
async def test_a_turn_whose_session_is_forgotten_stops_and_leaves_nothing(
    start_agent: Open, redis: Redis, name: str
) -> None:
    agent, turn_context = (
        start_agent(reply("Hi."), reply("", (name, {"text": "x"})), reply("Never."), reply("Three.")),
        context(),
    )
    await agent.ask("before")
    agent.tools.hang = True
    following = asyncio.create_task(agent.follow(turn_context, REQUEST))
    await agent.tools.begun.wait()
    holder = await agent.memory.forget(context())
    assert holder == RunKeys("default", turn_context.run_id)
    await cancel_run(redis, holder, 100)
    await asyncio.wait_for(following, 2)
    assert (len(agent.model.requests), await redis.exists(KEYS.exchanges, KEYS.lease)) == (2, 0)
    agent.model.replies.pop(2)
    assert (await agent.ask("after")).result == "Three."
    assert agent.kinds(2) == ["system", "human"]


async def test_a_turn_whose_session_is_forgotten_goes_no_further_than_its_next_step(start_agent: Open) -> None:
    agent = start_agent(reply("", ("echo", {"text": "x"})), reply("", ("pay", {"text": "y"})), reply("Never."))
    waiting, ending = asyncio.Event(), asyncio.Event()

    async def wait(_: str) -> None:
        waiting.set()
        await ending.wait()

    agent.tools.ending = wait
    following = asyncio.create_task(agent.follow(context(), REQUEST))
    await waiting.wait()
    await agent.memory.forget(context())
    ending.set()
    events = await asyncio.wait_for(following, 2)
    assert [event.name for event in events] == ["run", "tool_call"]
    assert ([text for text, _ in agent.tools.made], len(agent.model.requests)) == (["x"], 1)
    assert await _remembered(agent) == []
    assert not any(isinstance(event.data, Answer) for event in events)
