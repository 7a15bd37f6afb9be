"""The answer cache of turns: a hit for the same question, and for no other."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
from agent_process import AgentProcess, context
from cache_harness import CACHING, AgentPool

from serve_app import cache
from serve_app.config import CacheSettings
from serve_app.runs.event_log import cancel_run
from serve_app.stores.redis_keys import RunKeys
from serve_app.values import Answer, ChatRequest, Failed, Fault, RunStarted, Token, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    Open = Callable[..., AgentProcess]


async def cached_answers(redis: Redis) -> list[str]:
    """The answers in Redis."""
    keys = await redis.keys("serve_app:answer:*}")
    return [await redis.hget(key, "answer") for key in keys]


FAULT = Fault(target="tool:echo", mode="slow", rate=1, delay_s=0.01, until=4e9)


async def test_a_second_equal_question_is_answered_without_the_model(start_agent: Open) -> None:
    pool = AgentPool(start_agent)
    first, second = await pool.ask("echo it: one"), await pool.ask("  echo  it: one ")
    assert (first.cached, second.cached) == (False, True)
    assert (first.usage.input_tokens > 0, second.usage) == (True, Usage())
    assert first.run_id != second.run_id
    assert first.session_id != second.session_id
    same = {"result", "citations", "tool_calls", "model", "status"}
    assert first.model_dump(include=same) == second.model_dump(include=same)
    assert (pool.model.calls.total(), pool.lookups) == (1, {"miss": 1, "hit": 1})


async def test_citations_are_kept(start_agent: Open) -> None:
    pool = AgentPool(start_agent)
    first, second = await pool.ask("search it: one"), await pool.ask("search it: one")
    assert second.cached
    assert second.citations == first.citations
    assert second.citations


async def test_without_a_time_to_live_nothing_is_looked_for_or_kept(start_agent: Open, redis: Redis) -> None:
    pool = AgentPool(start_agent, cache=CacheSettings())
    assert [(await pool.ask("one")).cached for _ in range(2)] == [False, False]
    assert (pool.lookups, await redis.keys("serve_app:answer:*")) == ({}, [])


async def test_a_stream_tells_the_run_the_text_and_the_answer(start_agent: Open) -> None:
    pool = AgentPool(start_agent, agents=1)
    await pool.ask("one")
    answer = await pool.ask("one", stream=True)
    assert answer.cached
    [started, token, last] = pool.agents[0].emitted
    assert isinstance(started, RunStarted)
    assert token == Token(text="Answer to one", restart=False)
    assert last == answer


async def test_a_conversation_remembers_the_turn_as_if_it_had_been_made(start_agent: Open) -> None:
    pool = AgentPool(start_agent, agents=1)
    first, second = await pool.ask("echo it: one"), await pool.ask("echo  it: one")
    exchanges = [
        (await pool.agents[0].memory.session(context(session=each.session_id), 9)).exchanges[0]
        for each in (first, second)
    ]
    assert exchanges[1].messages[0].content == "echo  it: one"
    assert exchanges[1].messages[1:] == exchanges[0].messages[1:]
    assert (exchanges[1].run_id, len(exchanges[1].messages)) == (second.run_id, 4)


async def test_the_same_question_after_another_conversation_is_another_question(start_agent: Open) -> None:
    pool = AgentPool(start_agent)
    for session, before in (("a", "one"), ("b", "two"), ("c", "one")):
        await pool.ask(before, session_id=session)
        answer = await pool.ask("and now?", session_id=session)
        assert answer.cached is (session == "c"), session
    assert pool.model.calls["and now?"] == 2


async def test_what_a_tools_call_was_named_by_its_provider_makes_no_other_conversation(start_agent: Open) -> None:
    pool = AgentPool(start_agent)
    for session in ("a", "b"):
        await pool.ask("echo it: one", session_id=session, cache="no-store")
    first, second = [await pool.ask("and now?", session_id=session) for session in ("a", "b")]
    assert (first.cached, second.cached) == (False, True)


@pytest.mark.parametrize(
    "question",
    ["save it: x", "pay it: x", "gone it: x", "broken it: x", "order_query it: x", "zap it: x"],
    ids=["idempotent", "effect", "without a replica", "degraded", "live", "unknown"],
)
async def test_an_answer_is_not_kept_that_a_tool_had_a_part_in_which_is_not_pure_or_not_well(
    start_agent: Open, question: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.agent.tool_dispatch.FAILOVER_PAUSES_S", ())
    pool = AgentPool(start_agent)
    assert [(await pool.ask(question)).cached for _ in range(2)] == [False, False]
    assert pool.model.calls[question] == 2
    assert await cached_answers(redis) == []


PLANTED = {
    "mail": "write to wang.fang@example.com.cn",
    "phone": "call 139 1234 5678",
    "wide digits": "call １３９１２３４５６７８",
    "key": "my key is sk-proj-Ab12Cd34Ef56Gh78Ij90",
    "own": "I am EMP-204815",
}


@pytest.mark.parametrize("text", PLANTED.values(), ids=PLANTED)
@pytest.mark.parametrize("where", ["question", "context", "tool"])
async def test_nothing_personal_is_kept(
    start_agent: Open, redis: Redis, text: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = AgentPool(start_agent, redact=(r"EMP-\d{6}",))
    question = text if where == "question" else "echo it: one"
    for session in ("a", "b"):
        if where == "context":
            await pool.ask(text, session_id=session)
        if where == "tool":
            for agent in pool.agents:
                monkeypatch.setattr(agent.tools, "call", _telling(agent.tools.call, text))
        assert not (await pool.ask(question, session_id=session)).cached
    assert await cached_answers(redis) == []


async def test_an_answer_is_not_kept_where_a_tool_was_given_what_it_marks_as_sensitive(
    start_agent: Open, redis: Redis
) -> None:
    pool = AgentPool(start_agent)
    for agent in pool.agents:
        agent.tools.sensitive = {"text"}
    assert [(await pool.ask("echo it: one")).cached for _ in range(2)] == [False, False]
    assert await cached_answers(redis) == []


def _telling(call: Any, text: str) -> Any:
    async def telling(*given: Any) -> Any:
        return (await call(*given)).model_copy(update={"content": text})

    return telling


async def test_a_tenant_never_hits_another_ones_answer(start_agent: Open) -> None:
    pool = AgentPool(start_agent)
    for tenant in ("a", "b"):
        answers = [await pool.ask("one", tenant=tenant) for _ in range(2)]
        assert [each.cached for each in answers] == [False, True]
    assert pool.model.calls["one"] == 2


@pytest.mark.parametrize("settings", [{"prompt": "Be brief."}, {"max_steps": 3}], ids=["prompt", "another"])
async def test_agents_with_other_settings_share_nothing(start_agent: Open, settings: dict[str, Any]) -> None:
    pool, other = AgentPool(start_agent, agents=1), AgentPool(start_agent, agents=1, **settings)
    assert [(await each.ask("one")).cached for each in (pool, other, pool, other)] == [False, False, True, True]


async def test_agents_with_other_tools_share_nothing(start_agent: Open) -> None:
    pool = AgentPool(start_agent)
    await pool.ask("one", pool.agents[0])
    pool.agents[1].tools.absent = {"echo"}
    answers = [await pool.ask("one", pool.agents[1]) for _ in range(2)]
    assert [(each.cached, each.degraded) for each in answers] == [(False, []), (True, [])]


async def test_a_faulty_turn_is_neither_answered_from_what_is_kept_nor_kept(start_agent: Open) -> None:
    pool = AgentPool(start_agent)
    cached = [(await pool.ask("one", faults=faults)).cached for faults in ((FAULT,), (), (FAULT,), ())]
    assert cached == [False, False, False, True]
    assert pool.lookups == {"bypassed": 2, "miss": 1, "hit": 1}


async def test_no_cache_makes_the_answer_anew_for_those_who_come_later(start_agent: Open, redis: Redis) -> None:
    pool = AgentPool(start_agent)
    await pool.ask("one")
    [key] = await redis.keys("serve_app:answer:*")
    await redis.hset(key, "answer", (await redis.hget(key, "answer")).replace("Answer to", "Old answer to"))
    assert (await pool.ask("one")).result == "Old answer to one"
    assert not (await pool.ask("one", cache="no-cache")).cached
    last = await pool.ask("one")
    assert (last.cached, last.result) == (True, "Answer to one")
    assert pool.lookups == {"miss": 1, "hit": 2, "bypassed": 1}


async def test_no_store_neither_gives_nor_keeps(start_agent: Open, redis: Redis) -> None:
    pool = AgentPool(start_agent)
    assert not (await pool.ask("one", cache="no-store")).cached
    assert await redis.keys("serve_app:answer:*") == []
    await pool.ask("one")
    assert not (await pool.ask("one", cache="no-store")).cached


async def test_an_answer_is_given_no_longer_than_it_may_be(start_agent: Open) -> None:
    pool = AgentPool(start_agent, cache=CacheSettings(ttl_s=0.3))
    assert [(await pool.ask("one")).cached for _ in range(2)] == [False, True]
    await asyncio.sleep(0.35)
    assert not (await pool.ask("one")).cached


async def test_an_answer_that_is_too_large_is_not_kept(start_agent: Open) -> None:
    pool = AgentPool(start_agent, cache=CacheSettings(ttl_s=60, max_bytes=1024))
    long = "word " * 200
    assert [(await pool.ask(each)).cached for each in ("short", "short", long, long)] == [False, True, False, False]


async def test_hundreds_of_questions_with_repeats_are_answered_right_and_each_once_by_the_model(
    start_agent: Open,
) -> None:
    pool = AgentPool(start_agent)
    chance = random.Random(7)
    distinct = [f"question {number}?" for number in range(210)]
    questions = [*distinct, *chance.choices(distinct, k=90)]
    chance.shuffle(questions)
    gate = asyncio.Semaphore(50)

    async def ask(question: str) -> Answer:
        async with gate:
            return await pool.ask(question)

    answers = await asyncio.gather(*map(ask, questions))
    assert [each.result for each in answers] == [f"Answer to {question}" for question in questions]
    assert sum(each.cached for each in answers) == 90
    assert pool.model.calls == dict.fromkeys(distinct, 1)
    lookups = pool.lookups
    assert (lookups["miss"], lookups["hit"] + lookups.get("joined", 0)) == (210, 90)


async def test_a_hundred_equal_questions_at_once_cost_one_call_of_the_model(start_agent: Open) -> None:
    pool = AgentPool(start_agent)
    pool.model.pause_s = 0.3
    answers = await asyncio.gather(*(pool.ask("one") for _ in range(100)))
    assert {each.result for each in answers} == {"Answer to one"}
    assert sum(not each.cached for each in answers) == 1
    assert pool.lookups == {"miss": 1, "joined": 99}
    assert pool.model.calls == {"one": 1}


async def test_those_who_waited_for_an_answer_that_is_not_for_others_ask_at_once_and_side_by_side(
    start_agent: Open,
) -> None:
    pool = AgentPool(start_agent)
    pool.model.pause_s = 0.4
    begun = asyncio.get_running_loop().time()
    answers = await asyncio.gather(*(pool.ask("save it: one") for _ in range(20)))
    assert not any(each.cached for each in answers)
    assert pool.model.calls["save it: one"] == 20
    assert asyncio.get_running_loop().time() - begun < 5, "one after the other they take eight seconds"
    assert pool.lookups == {"miss": 20}


async def test_those_who_waited_for_one_that_fails_ask_at_once_and_side_by_side(start_agent: Open) -> None:
    pool = AgentPool(start_agent)
    pool.model.pause_s = 0.3
    ends = await asyncio.gather(*(pool.end("fails") for _ in range(4)))
    assert all(isinstance(each, Failed) for each in ends)
    assert pool.model.calls["fails"] == 4


async def test_another_one_leads_where_the_run_that_leads_is_cancelled(start_agent: Open, redis: Redis) -> None:
    pool = AgentPool(start_agent)
    pool.model.gate = asyncio.Event()
    turn_context = context(session="leader")
    leading = asyncio.create_task(
        pool.agents[0].follow(turn_context, ChatRequest(user_input="one", session_id="leader"))
    )
    await pool.begun("one")
    waiting = [asyncio.create_task(pool.ask("one")) for _ in range(10)]
    await asyncio.sleep(0.1)
    begun = asyncio.get_running_loop().time()
    await cancel_run(redis, RunKeys("default", turn_context.run_id), 100)
    await pool.begun("one", 2)
    assert asyncio.get_running_loop().time() - begun < cache.LEAD_MS / 1000
    pool.model.gate.set()
    answers = await asyncio.gather(*waiting)
    assert sum(each.cached for each in answers) == 9
    assert pool.model.calls["one"] == 2
    await leading


@pytest.fixture
def short_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that leads is dead sooner."""
    monkeypatch.setattr(cache, "LEAD_MS", 1200)
    monkeypatch.setattr(cache, "RENEW_EVERY_S", 0.1)


@pytest.mark.usefixtures("short_life")
async def test_another_one_leads_where_the_process_that_leads_dies(start_agent: Open) -> None:
    pool = AgentPool(start_agent)
    pool.model.gate = asyncio.Event()
    dying, living = pool.agents
    leading = asyncio.create_task(pool.end("one", dying))
    await pool.begun("one")
    waiting = [asyncio.create_task(pool.ask("one", living)) for _ in range(10)]
    await asyncio.sleep(0.2)
    begun = asyncio.get_running_loop().time()
    dying.answers._leads.clear()  # type: ignore[union-attr]
    dying.answers.release = lambda *_, **__: None  # type: ignore[method-assign, union-attr]  # what SIGKILL leaves
    await dying.die()
    await pool.begun("one", 2)
    assert asyncio.get_running_loop().time() - begun < 3
    pool.model.gate.set()
    answers = await asyncio.gather(*waiting)
    assert (
        sum(not each.cached for each in answers) <= 2
    )  # the run of the dead one is taken over, too, and asks with them
    assert pool.model.calls["one"] <= 3
    leading.cancel()


@pytest.mark.usefixtures("short_life")
async def test_two_leaders_that_die_one_after_the_other_are_outlived(start_agent: Open) -> None:
    pool = AgentPool(start_agent, agents=3)
    pool.model.gate = asyncio.Event()
    *dying, _ = pool.agents
    asking = []
    for number, agent in enumerate(pool.agents):
        asking.append(asyncio.create_task(pool.end("one", agent)))
        if number:
            await asyncio.sleep(0.1)
            dying[number - 1].answers.release = lambda *_, **__: None  # type: ignore[method-assign, union-attr]
            await dying[number - 1].die()  # what SIGKILL leaves
        await pool.begun("one", number + 1)
    pool.model.gate.set()
    last = await asking[-1]
    assert isinstance(last, Answer)
    assert last.result == "Answer to one"
    await asyncio.gather(*asking, return_exceptions=True)


async def test_a_follower_waits_no_longer_than_it_has(start_agent: Open) -> None:
    pool = AgentPool(start_agent)
    pool.model.gate = asyncio.Event()
    leading = asyncio.create_task(pool.ask("one"))
    await pool.begun("one")
    ended = await pool.end("one", timeout_s=0.5)
    assert isinstance(ended, Failed)
    assert ended.error.code == "deadline_exceeded"
    pool.model.gate.set()
    assert not (await leading).cached


@pytest.mark.usefixtures("short_life")
async def test_a_leader_is_renewed_for_as_long_as_it_takes(start_agent: Open) -> None:
    pool = AgentPool(start_agent)
    pool.model.pause_s = 2
    answers = await asyncio.gather(*(pool.ask("one") for _ in range(10)))
    assert sum(each.cached for each in answers) == 9
    assert pool.model.calls["one"] == 1


async def test_while_redis_is_away_turns_go_on_without(start_agent: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = AgentPool(start_agent)
    monkeypatch.setattr("serve_app.cache.GET", "return redis.error_reply('away')")
    assert [(await pool.ask("one")).cached for _ in range(4)] == [False] * 4
    assert pool.lookups == {"bypassed": 4}
    monkeypatch.undo()
    assert [(await pool.ask("one")).cached for _ in range(2)] == [False, True]


def test_what_is_kept_by_default_is_nothing() -> None:
    assert CacheSettings().ttl_s is None
    assert CACHING.ttl_s
