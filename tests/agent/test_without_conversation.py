"""Turns without a conversation: they read their own history and write no memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from agent_process import context, dying_store, killed, reply

from serve_app.config import FeedbackSettings
from serve_app.errors import StoreUnavailable
from serve_app.runs.feedback import FeedbackStore
from serve_app.runs.store import RunStore
from serve_app.stores.redis_keys import UNFINISHED_RUNS
from serve_app.values import Answer, ChatRequest, FeedbackRequest, Message, TurnRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_process import AgentProcess
    from redis.asyncio import Redis

    Open = Callable[..., AgentProcess]

HISTORY = (Message(role="user", content="I am Ann."), Message(role="assistant", content="Hello Ann."))
REQUEST = TurnRequest(user_input="Who am I?", instructions="Speak like a pirate.", history=HISTORY)


async def _run_turn(agent: AgentProcess, request: ChatRequest = REQUEST, session: str = "") -> Answer:
    [*_, last] = await agent.follow(context(session=session), request)
    assert isinstance(last.data, Answer), last
    return last.data


def _last_request(agent: AgentProcess) -> list[tuple[str, str]]:
    return [(message.type, message.text) for message in agent.model.requests[-1]]


async def test_the_model_reads_the_history_that_the_request_gives_and_one_system_message(start_agent: Open) -> None:
    agent = start_agent(reply("Ann."))
    answer = await _run_turn(agent)
    (kind, prompt), *messages = _last_request(agent)
    assert messages == [("human", "I am Ann."), ("ai", "Hello Ann."), ("human", "Who am I?")]
    assert kind == "system"
    assert prompt.startswith("You are a helpful assistant.")
    assert prompt.endswith("\nSpeak like a pirate.")
    assert (answer.status, answer.session_id) == ("success", "")


async def test_nothing_is_kept_of_the_turn_but_the_run(start_agent: Open, redis: Redis) -> None:
    answer = await _run_turn(start_agent(reply("", ("pay", {"text": "x"})), reply("Ann.")))
    assert await redis.keys("*:exchanges") == []
    assert await redis.keys("*:lease") == []
    [meta] = await redis.keys("*:meta")
    run = f"serve_app:run:{{default:{answer.run_id}}}"
    assert abs(await redis.ttl(meta) - await redis.ttl(run)) <= 1


async def test_turns_without_a_conversation_do_not_wait_for_one_another(start_agent: Open) -> None:
    agent = start_agent(
        reply("", ("echo", {"text": "a", "sleep_s": 0.5})), reply("", ("echo", {"text": "b"})), reply("Done.")
    )
    waiting = asyncio.create_task(_run_turn(agent))
    await agent.tools.begun.wait()
    async with asyncio.timeout(0.3):
        await _run_turn(agent)
    waiting.cancel()


async def test_the_history_survives_the_death_of_the_process(start_agent: Open, redis: Redis) -> None:
    turn_context = context(session="")
    steps = [reply("", ("echo", {"text": "a"})), reply("Ann.")]
    first = start_agent(*steps, store=dying_store(3))
    assert await killed(first, turn_context, REQUEST)
    second = start_agent()
    for member in await redis.zrange(UNFINISHED_RUNS, 0, -1):
        await redis.zadd(UNFINISHED_RUNS, {member: 1})  # its lease has expired
    async with asyncio.timeout(8):  # it adopts the run, of which nobody but Redis tells it
        await second.model.hanging.wait()
    messages = [(kind, text) for kind, text in _last_request(second) if kind == "human"]
    assert messages == [("human", "I am Ann."), ("human", "Who am I?")]
    assert _last_request(second)[0][1].endswith("Speak like a pirate.")
    assert second.kinds(0) == ["system", "human", "ai", "human", "ai", "tool"]


class Leaves(RunStore):
    """A Redis that does not answer once the run has begun."""

    async def append(self, _: Any) -> Any:
        raise StoreUnavailable("away")


class Away(Leaves):
    """A Redis that does not answer."""

    async def begin(self, *_: Any) -> Any:
        raise StoreUnavailable("away")


@pytest.mark.parametrize("store", [Away, Leaves])
async def test_without_redis_nothing_is_missing(start_agent: Open, store: type[RunStore]) -> None:
    answer = await _run_turn(start_agent(reply("Ann."), store=store, max_wait_s=0.05))
    assert (answer.status, answer.degraded) == ("success", [])


async def test_in_a_conversation_the_instructions_hold_for_their_turn_and_memory_is_the_history(
    start_agent: Open,
) -> None:
    agent = start_agent(reply("Arr."), reply("Yes."))
    await _run_turn(agent, TurnRequest(user_input="Hello", session_id="s", instructions="Be a pirate."), "s")
    await _run_turn(agent, ChatRequest(user_input="Again", session_id="s"), "s")
    (_, prompt), *messages = _last_request(agent)
    assert "pirate" not in prompt
    assert messages == [("human", "Hello"), ("ai", "Arr."), ("human", "Again")]


async def test_a_vote_on_such_a_turn_is_kept_with_its_question(start_agent: Open, redis: Redis) -> None:
    answer = await _run_turn(start_agent(reply("Ann.")))
    book = FeedbackStore(redis, FeedbackSettings())
    await book.vote(context(), FeedbackRequest(run_id=answer.run_id, rating="up"))
    [vote] = (await book.list_votes(context(), None, 1)).feedback
    assert (vote.question, vote.session_id) == ("Who am I?", "")
