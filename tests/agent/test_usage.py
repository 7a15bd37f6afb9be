"""The token usage of a turn: charged once, however the turn ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from agent_process import AgentProcess, Broken, Stuck, context, dying_store, killed, reply

from serve_app.config import RunSettings
from serve_app.llm.telemetry import estimate_tokens
from serve_app.resilience.tasks import cancel_and_wait
from serve_app.runs.event_log import RunEventLog
from serve_app.values import Answer, ChatRequest, Context, Failed, Metering

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio import Redis

    Open = Callable[..., AgentProcess]

REQUEST = ChatRequest(user_input="hello", session_id="s")
CALL = reply("", ("echo", {"text": "x"}))
STEP = 12
"""Tokens of one reply."""
STREAMED = ChatRequest(user_input="hello", session_id="s", stream=True)
TEXT = "nearly all of the text " * 20


class FakeMeter:
    """Keeps what it is charged with."""

    def __init__(self) -> None:
        self.charged: list[tuple[str, int]] = []

    async def charge(self, used: Sequence[tuple[Context, int]]) -> None:
        self.charged += [(context.run_id, tokens) for context, tokens in used]

    async def wait_for_charges(self, of: int = 1) -> list[tuple[str, int]]:
        async with asyncio.timeout(5):
            while len(self.charged) < of:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        return self.charged


@pytest.fixture
def meter() -> FakeMeter:
    return FakeMeter()


def _metered_context(**given: Any) -> Context:
    return context(**given).model_copy(update={"metering": Metering(tenant_per_minute=100)})


def _metered(agent: AgentProcess, meter: FakeMeter) -> AgentProcess:
    agent.worker._services.writer._meter = meter
    return agent


def _cut(agent: AgentProcess, step: int, text: str = "") -> int:
    """Tokens of a step that ended after it had said so much."""
    read = sum(estimate_tokens(message.text) for message in agent.model.requests[step])
    return read + estimate_tokens(f"{text} " if text else "")


async def test_a_turn_that_is_answered_is_charged_for_all_its_model_calls(start_agent: Open, meter: FakeMeter) -> None:
    turn_context = _metered_context()
    last = (await _metered(start_agent(CALL, reply("Done.")), meter).follow(turn_context, REQUEST))[-1].data
    assert isinstance(last, Answer)
    assert await meter.wait_for_charges() == [(turn_context.run_id, 2 * STEP)]


async def test_a_turn_that_fails_is_charged_for_what_it_used(start_agent: Open, meter: FakeMeter) -> None:
    turn_context = _metered_context()
    last = (await _metered(start_agent(CALL, Broken("")), meter).follow(turn_context, REQUEST))[-1].data
    assert isinstance(last, Failed)
    assert await meter.wait_for_charges() == [(turn_context.run_id, STEP)]


@pytest.mark.parametrize(("request_", "text"), [(REQUEST, ""), (STREAMED, ""), (STREAMED, TEXT)])
async def test_a_turn_whose_time_ran_out_is_charged_for_what_it_used(
    start_agent: Open, meter: FakeMeter, request_: ChatRequest, text: str
) -> None:
    turn_context, agent = (
        _metered_context(seconds=0.5),
        _metered(start_agent(CALL, *([Stuck(text)] if text else [])), meter),
    )
    last = (await agent.follow(turn_context, request_))[-1].data
    assert isinstance(last, Failed)
    assert await meter.wait_for_charges() == [(turn_context.run_id, STEP + _cut(agent, 1, text))]


@pytest.mark.parametrize(("request_", "text"), [(REQUEST, ""), (STREAMED, ""), (STREAMED, TEXT)])
async def test_a_turn_that_a_client_cancels_is_charged_for_what_it_used(
    start_agent: Open, meter: FakeMeter, redis: Redis, request_: ChatRequest, text: str
) -> None:
    turn_context, agent = (
        _metered_context(),
        _metered(start_agent(CALL, *([Stuck(text)] if text else [])), meter),
    )
    log = RunEventLog(redis, RunSettings())
    following = asyncio.create_task(agent.follow(turn_context, request_))
    await asyncio.wait_for(agent.model.hanging.wait(), 5)
    await log.cancel(turn_context, turn_context.run_id)
    assert await meter.wait_for_charges() == [(turn_context.run_id, STEP + _cut(agent, 1, text))]
    await cancel_and_wait(following)


async def test_a_reply_that_breaks_off_is_charged_for_what_came_of_it(start_agent: Open, meter: FakeMeter) -> None:
    turn_context, agent = _metered_context(), _metered(start_agent(Broken(TEXT)), meter)
    last = (await agent.follow(turn_context, STREAMED))[-1].data
    assert isinstance(last, Failed)
    assert await meter.wait_for_charges() == [(turn_context.run_id, _cut(agent, 0, TEXT))]


@pytest.mark.parametrize("text", ["", TEXT])
async def test_a_reply_that_another_model_begins_anew_is_charged_beside_what_came_of_the_first(
    start_agent: Open, meter: FakeMeter, text: str
) -> None:
    turn_context, agent = _metered_context(), _metered(start_agent(Broken(text), fallback=[reply("Done.")]), meter)
    last = (await agent.follow(turn_context, STREAMED))[-1].data
    assert isinstance(last, Answer)
    assert await meter.wait_for_charges() == [(turn_context.run_id, STEP + (_cut(agent, 0, text) if text else 0))]
    assert last.usage.input_tokens + last.usage.output_tokens == meter.charged[0][1]


async def test_a_turn_that_another_process_goes_on_with_is_charged_once_and_by_that_one(
    start_agent: Open, meter: FakeMeter
) -> None:
    turn_context, first = _metered_context(), FakeMeter()
    assert await killed(_metered(start_agent(CALL, store=dying_store(3)), first), turn_context, REQUEST)
    await _metered(start_agent(reply("Done.")), meter).follow(turn_context, REQUEST, after=3)
    assert (await meter.wait_for_charges(), first.charged) == ([(turn_context.run_id, 2 * STEP)], [])


async def test_nobody_is_charged_where_no_tokens_are_limited(start_agent: Open, meter: FakeMeter) -> None:
    await _metered(start_agent(reply("Done.")), meter).follow(context(), REQUEST)
    await asyncio.sleep(0.1)
    assert meter.charged == []
