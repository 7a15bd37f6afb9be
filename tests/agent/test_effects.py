"""Is what a turn did remembered, and done only where that can be recorded?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from desk import Broken, context, killed, mortal, reply

from serve_app.errors import StoreUnavailable
from serve_app.memory.repair import NO_ANSWER, NO_RESULT, repaired
from serve_app.runs.event_log import cancel_run
from serve_app.runs.store import RunStore
from serve_app.stores.redis_keys import RunKeys, SessionKeys
from serve_app.values import Answer, Cancelled, ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from desk import Desk
    from redis.asyncio import Redis

    from serve_app.values import Context, RunEvent

    Open = Callable[..., Desk]

KEYS = SessionKeys("default", "s")
REQUEST = ChatRequest(user_input="first", session_id="s")
NO_MORE = Broken("")
"""With which a turn fails."""


class Unrecorded(RunStore):
    async def reserve(self, *given: Any) -> Any:
        raise StoreUnavailable("Redis did not answer")


async def _cancelled(desk: Desk, asked: Context) -> list[RunEvent]:
    """What is seen of a run that a client cancels, until it has ended in its process."""
    following = asyncio.create_task(desk.follow(asked, REQUEST))
    await desk.tools.begun.wait()
    assert await cancel_run(desk.redis, RunKeys("default", asked.run_id), 100)
    return await asyncio.wait_for(following, 2)


async def _remembered(desk: Desk) -> list[list[tuple[str, str]]]:
    exchanges = (
        [] if not await desk.redis.exists(KEYS.exchanges) else (await desk.window.session(context(), 9)).exchanges
    )
    assert [repaired(each.messages) for each in exchanges] == [(each.messages, 0) for each in exchanges]
    return [[(each.role, each.content) for each in one.messages] for one in exchanges]


def _paid(result: str) -> list[tuple[str, str]]:
    return [("user", "first"), ("assistant", ""), ("tool", result), ("assistant", NO_ANSWER)]


async def test_an_effect_that_cannot_be_recorded_is_not_made(open_desk: Open) -> None:
    calls = (("pay", {"text": "x"}), ("save", {"text": "y"}), ("echo", {"text": "z"}))
    desk = open_desk(reply("", *calls), reply("Not paid."), registry=Unrecorded, patience_s=0.1)
    answer = await desk.ask()
    assert [(call.status, call.attempts) for call in answer.tool_calls] == [("refused", 0), ("ok", 1), ("ok", 1)]
    assert (answer.status, set(answer.degraded) - {"memory"}) == ("degraded", {"tool:pay"})
    assert sorted(text for text, _ in desk.tools.made) == ["y", "z"]
    told = desk.tool_messages(1)[0]
    assert (told.status, "was not called" in told.text) == ("error", True)


async def test_tools_only_look_where_the_requests_key_cannot_be_kept(open_desk: Open) -> None:
    calls = (("pay", {"text": "x"}), ("save", {"text": "y"}), ("echo", {"text": "z"}))
    desk = open_desk(reply("", *calls), reply("Not paid."))
    asked = context().model_copy(update={"effects": False})
    *_, last = await desk.follow(asked, ChatRequest(user_input="first", session_id="s"))
    assert isinstance(last.data, Answer)
    assert [call.status for call in last.data.tool_calls] == ["refused", "refused", "ok"]
    assert [text for text, _ in desk.tools.made] == ["z"]


async def test_a_call_that_was_refused_and_then_made_degrades_nothing(open_desk: Open) -> None:
    class Late(RunStore):
        refusals = 1

        async def reserve(self, *given: Any) -> Any:
            self.refusals -= 1
            if self.refusals >= 0:
                raise StoreUnavailable("Redis did not answer")
            return await super().reserve(*given)

    pay = reply("", ("pay", {"text": "x"}))
    desk = open_desk(pay, pay, reply("Paid."), registry=Late, patience_s=0)
    answer = await desk.ask()
    assert [call.status for call in answer.tool_calls] == ["refused", "ok"]
    assert (answer.degraded, len(desk.tools.made)) == ([], 1)


async def test_each_call_of_a_turn_has_a_key_of_its_own(open_desk: Open) -> None:
    twice = reply("", ("save", {"text": "x"}), ("save", {"text": "x"}))
    desk = open_desk(twice, twice, reply("Saved."))
    answer = await desk.ask()
    keys = [key for _, key in desk.tools.made]
    assert sorted(keys) == [f"{answer.run_id}:{step}:{index}" for step in (0, 1) for index in (0, 1)]


@pytest.mark.parametrize("name", ["pay", "save"])
async def test_a_turn_that_fails_after_an_effect_is_remembered(open_desk: Open, name: str) -> None:
    desk = open_desk(reply("", (name, {"text": "x"})), NO_MORE, reply("Two."))
    await desk.fail("first")
    assert await _remembered(desk) == [_paid("x")]
    await desk.ask("second")
    assert desk.kinds(2) == ["system", "human", "ai", "tool", "ai", "human"]


async def test_a_turn_that_fails_without_an_effect_is_not_remembered(open_desk: Open) -> None:
    calls = (("echo", {"text": "x"}), ("knowledge_search", {"query": "a"}))
    desk = open_desk(reply("", *calls), NO_MORE, reply("Two."))
    await desk.fail("first")
    assert await _remembered(desk) == []
    await desk.ask("second")
    assert desk.kinds(2) == ["system", "human"]


async def test_what_was_done_before_the_step_that_failed_is_remembered(open_desk: Open) -> None:
    desk = open_desk(reply("", ("pay", {"text": "x"})), reply("", ("echo", {"text": "y"})), NO_MORE)
    await desk.fail("first")
    assert await _remembered(desk) == [[*_paid("x")[:3], ("assistant", ""), ("tool", "y"), ("assistant", NO_ANSWER)]]


async def test_a_turn_whose_time_runs_out_during_an_effect_is_remembered_without_its_outcome(open_desk: Open) -> None:
    desk = open_desk(reply("", ("pay", {"text": "x"})))
    desk.tools.hang = True
    assert (await desk.fail("first", seconds=0.5)).code == "deadline_exceeded"
    assert await _remembered(desk) == [_paid(NO_RESULT)]


async def test_a_turn_that_is_cancelled_during_an_effect_is_remembered_without_its_outcome(open_desk: Open) -> None:
    desk, asked = open_desk(reply("", ("pay", {"text": "x"})), reply("Two.")), context()
    desk.tools.hang = True
    assert not any(event.last for event in await _cancelled(desk, asked))
    assert await _remembered(desk) == [_paid(NO_RESULT)]
    log = await desk.registry.entries(asked)
    assert [each.event.data for each in log][-1] == Cancelled(run_id=asked.run_id)
    await desk.ask("second")
    assert desk.kinds(1) == ["system", "human", "ai", "tool", "ai", "human"]


async def test_a_turn_that_is_cancelled_without_an_effect_is_not_remembered(open_desk: Open) -> None:
    desk = open_desk(reply("", ("echo", {"text": "x"})), reply("Two."))
    desk.tools.hang = True
    await _cancelled(desk, context())
    assert (await _remembered(desk), await desk.redis.exists(KEYS.lease)) == ([], 0)
    assert (await desk.ask("second")).result == "Two."


async def test_a_turn_that_is_cancelled_after_an_effect_stops_its_model_and_is_remembered(open_desk: Open) -> None:
    desk, asked = open_desk(reply("", ("pay", {"text": "x"}))), context()
    following = asyncio.create_task(desk.follow(asked, REQUEST))
    await desk.model.hanging.wait()
    await cancel_run(desk.redis, RunKeys("default", asked.run_id), 100)
    await asyncio.wait_for(following, 1.5)
    assert desk.model.stopped
    assert await _remembered(desk) == [_paid("x")]


STEPS_AT = {2: 1, 3: 1, 4: 2, 5: 2}
"""How many of the model's steps are in the log below with so many events."""


@pytest.mark.parametrize("last", STEPS_AT)
@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_an_effect_is_remembered_though_its_process_died_and_the_turn_does_not_end_well(
    open_desk: Open, last: int, end: str
) -> None:
    asked = context()
    script = [reply("", ("pay", {"text": "x"})), reply("", ("echo", {"text": "y"}))]
    first = open_desk(*script, registry=mortal(last))
    assert await killed(first, asked, REQUEST)
    second = open_desk(*script[STEPS_AT[last] :], *([NO_MORE] if end == "failed" else []))
    following = asyncio.create_task(second.follow(asked, REQUEST, last))
    if end == "cancelled":
        await second.model.hanging.wait()
        await cancel_run(second.redis, RunKeys("default", asked.run_id), 100)
    await asyncio.wait_for(following, 2)
    assert await _remembered(second) == [[*_paid("x")[:3], ("assistant", ""), ("tool", "y"), ("assistant", NO_ANSWER)]]


@pytest.mark.parametrize("name", ["echo", "pay"])
async def test_a_turn_whose_session_is_forgotten_stops_and_leaves_nothing(
    open_desk: Open, redis: Redis, name: str
) -> None:
    desk, asked = open_desk(reply("Hi."), reply("", (name, {"text": "x"})), reply("Never."), reply("Three.")), context()
    await desk.ask("before")
    desk.tools.hang = True
    following = asyncio.create_task(desk.follow(asked, REQUEST))
    await desk.tools.begun.wait()
    holder = await desk.window.forget(context())
    assert holder == RunKeys("default", asked.run_id)
    await cancel_run(redis, holder, 100)
    await asyncio.wait_for(following, 2)
    assert (len(desk.model.asked), await redis.exists(KEYS.exchanges, KEYS.lease)) == (2, 0)
    desk.model.replies.pop(2)
    assert (await desk.ask("after")).result == "Three."
    assert desk.kinds(2) == ["system", "human"]


async def test_a_turn_whose_session_is_forgotten_goes_no_further_than_its_next_step(open_desk: Open) -> None:
    desk = open_desk(reply("", ("echo", {"text": "x"})), reply("", ("pay", {"text": "y"})), reply("Never."))
    waiting, ending = asyncio.Event(), asyncio.Event()

    async def wait(_: str) -> None:
        waiting.set()
        await ending.wait()

    desk.tools.ending = wait
    following = asyncio.create_task(desk.follow(context(), REQUEST))
    await waiting.wait()
    await desk.window.forget(context())
    ending.set()
    events = await asyncio.wait_for(following, 2)
    assert [event.name for event in events] == ["run", "tool_call"]
    assert ([text for text, _ in desk.tools.made], len(desk.model.asked)) == (["x"], 1)
    assert await _remembered(desk) == []
    assert not any(isinstance(event.data, Answer) for event in events)
