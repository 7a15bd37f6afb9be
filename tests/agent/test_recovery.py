"""A turn goes on in another process, after whichever event its own process died."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from agent_process import NEVER, DyingStore, Pace, context, dying_store, killed, malformed, never, reply
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from serve_app.errors import StoreUnavailable
from serve_app.runs import event_writer
from serve_app.values import Answer, ChatRequest, RunStarted, Token, ToolCall, ToolRequest, ToolResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_process import AgentProcess

    from serve_app.runs.event_log import LogEntry
    from serve_app.values import Context

    Open = Callable[..., AgentProcess]

STEPS = [
    reply(
        "Let me look.",
        ("knowledge_search", {"query": "a"}),
        ("echo", {"text": "b"}),
        ("save", {"text": "c"}),
        ("pay", {"text": "d"}),
    ),
    reply("", ("knowledge_search", {"query": "e"}), ("pay", {"text": "f"})),
    reply("All is paid, as [3] says."),
]
SCRIPT = [step.model_copy(update={"id": f"m{number}"}) for number, step in enumerate(STEPS)]
TEXTS = "abcdef"
SEARCHES, SAVED, PAID = "ae", "c", "df"
EVENTS = 1 + 2 * 4 + 2 * 2 + 1
ORDERS = [("abcd", "ef"), ("dcba", "fe"), ("bdac", "fe"), ("cadb", "ef")]
"""In which the calls of the two steps end."""
REQUEST = ChatRequest(user_input="Pay!", session_id="s")
UNKNOWN = ToolResult.unknown("pay", 1, 0)


def _text(call: ToolCall | ToolRequest) -> str:
    return str(call.arguments.get("text") or call.arguments.get("query"))


def _steps_in(log: list[LogEntry]) -> int:
    """How many of the model's steps have been logged."""
    return sum(isinstance(each.event.data, Answer) or bool(each.state and "reply" in each.state) for each in log)


def _finished(log: list[LogEntry]) -> set[str]:
    return {_text(each.event.data) for each in log if isinstance(each.event.data, ToolCall)}


def _place(entry: LogEntry) -> int | None:
    """The place in its step of the call that ended so."""
    return json.loads(entry.state)["index"] if isinstance(entry.event.data, ToolCall) else None


async def _reserved(agent: AgentProcess, turn_context: Context) -> set[str]:
    places = {"effect:0:3": "d", "effect:1:1": "f"}
    fields = await agent.redis.hkeys(f"serve_app:run:{{default:{turn_context.run_id}}}")
    return {places[each] for each in fields if each.startswith("effect:")}


def _made(*agents: AgentProcess) -> Counter[str]:
    """How often each call was made, by its text."""
    return Counter(
        text for agent in agents for text in [*(text for text, _ in agent.tools.made), *agent.retriever.made]
    )


def _comparable(answer: Answer, unknown: set[str] = frozenset()) -> dict[str, Any]:  # type: ignore[assignment]
    """The answer without what differs from run to run; as it is where the outcome of the calls `unknown` is that."""
    calls = [
        {
            "text": _text(call),
            "status": "unknown" if _text(call) in unknown else call.status,
            "attempts": call.attempts,
        }
        for call in answer.tool_calls
    ]
    comparable = answer.model_dump(exclude={"run_id", "tool_calls"}) | {"calls": calls}
    return comparable | ({"status": "degraded", "degraded": ["tool:pay"]} if unknown else {})


def _read(messages: list[BaseMessage], unknown: set[str]) -> list[BaseMessage]:
    """What the model reads where the outcome of the calls `unknown` is that."""
    update = {"content": UNKNOWN.content, "status": "error"}
    return [
        each.model_copy(update=update) if isinstance(each, ToolMessage) and each.content in unknown else each
        for each in messages
    ]


async def _remembered(agent: AgentProcess, turn_context: Context) -> list[tuple[str, str, list[ToolRequest]]]:
    (exchange,) = (await agent.memory.session(turn_context, 9)).exchanges
    return [(each.role, each.content, each.tool_calls) for each in exchange.messages]


async def _answer(agent: AgentProcess, turn_context: Context) -> Answer:
    last = (await agent.store.read_entries(turn_context))[-1].event.data
    assert isinstance(last, Answer), last
    return last


async def _uncut(start_agent: Open) -> tuple[AgentProcess, Answer, Any]:
    """The turn as it goes where nobody dies: in another session."""
    agent, turn_context = start_agent(*SCRIPT), context(session="uncut")
    events = await agent.follow(turn_context, REQUEST.model_copy(update={"session_id": "uncut"}))
    assert len(events) == EVENTS
    answer = events[-1].data.model_copy(update={"session_id": "s"})
    return agent, answer, await _remembered(agent, turn_context)


@pytest.mark.parametrize("last", range(1, EVENTS + 1))
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_a_turn_that_is_cut_after_any_event_ends_like_one_that_is_not(
    start_agent: Open, order: tuple[str, str], last: int
) -> None:
    whole, expected, remembered = await _uncut(start_agent)
    turn_context, pace = context(), Pace(order)
    first = start_agent(*SCRIPT, store=dying_store(last, pace), pace=pace)
    assert await killed(first, turn_context, REQUEST)
    log = await first.store.read_entries(turn_context)
    assert [each.event.id for each in log] == list(range(1, last + 1))
    finished, reserved, steps = _finished(log), await _reserved(first, turn_context), _steps_in(log)

    second = start_agent(*SCRIPT[steps:])
    events = await second.follow(turn_context, REQUEST, after=last)
    answer = await _answer(second, turn_context)

    unknown = reserved - finished
    assert len(second.model.requests) == len(SCRIPT) - steps  # no finished model step is run again
    made = _made(first, second)
    assert {text: made[text] for text in finished} == dict.fromkeys(finished, 1)  # nor is a finished call
    assert unknown.isdisjoint(_made(second))  # an effect that was perhaps made is left alone
    assert {text: made[text] for text in PAID} == dict.fromkeys(PAID, 1)  # any other one is made, and once
    assert {key for text, key in [*first.tools.made, *second.tools.made] if text == SAVED} == {
        f"{turn_context.run_id}:0:2"
    }
    assert {text for text in TEXTS if made[text] == 0} == set()

    assert _comparable(answer) == _comparable(expected, unknown)
    assert [citation.source for citation in answer.citations] == ["e1.md"]
    if second.model.requests:
        assert second.model.requests[-1] == _read(whole.model.requests[-1], unknown)
    assert await _remembered(second, turn_context) == [
        (role, UNKNOWN.content if role == "tool" and content in unknown else content, calls)
        for role, content, calls in remembered
    ]

    entries = await second.store.read_entries(turn_context)
    assert [each.event.id for each in entries] == list(range(1, len(entries) + 1))
    assert [each.event for each in entries[last:]] == events
    if last < EVENTS:
        assert events[0].data == RunStarted(run_id=turn_context.run_id, recovered=True)
    assert sorted(_text(each.event.data) for each in entries if isinstance(each.event.data, ToolCall)) == list(TEXTS)


async def test_a_turn_that_loses_a_process_after_each_step_ends_like_one_that_does_not(start_agent: Open) -> None:
    _, expected, remembered = await _uncut(start_agent)
    turn_context, after, agents = context(), 0, []
    for steps, last in enumerate((9, 14, NEVER)):
        agents.append(start_agent(*SCRIPT[steps:], store=dying_store(last)))
        assert await killed(agents[-1], turn_context, REQUEST, after) == (last != NEVER)
        after = last
    answer = await _answer(agents[-1], turn_context)
    assert _comparable(answer) == _comparable(expected)
    assert _made(*agents) == dict.fromkeys(TEXTS, 1)
    assert [len(agent.model.requests) for agent in agents] == [1, 1, 1]
    assert await _remembered(agents[-1], turn_context) == remembered


async def test_a_stream_that_is_cut_after_any_event_tells_the_answer_once(
    start_agent: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_writer, "INTERVAL_MIN_S", 0.002)
    monkeypatch.setattr(event_writer, "INTERVAL_MAX_S", 0.002)
    for last in count(1):
        turn_context = context(session=f"s{last}")
        request = ChatRequest(user_input="Pay!", session_id=turn_context.session_id, stream=True)
        first = start_agent(*SCRIPT, store=dying_store(last))
        first.model.pause_s = 0.008  # each word is an event of its own
        if not await killed(first, turn_context, request):
            break
        log = await first.store.read_entries(turn_context)
        second = start_agent(*SCRIPT[_steps_in(log) :])
        await second.follow(turn_context, request, after=last)
        shown, restarts = "", 0
        for each in await second.store.read_entries(turn_context):
            if isinstance(each.event.data, Token):
                shown = each.event.data.text if each.event.data.restart else shown + each.event.data.text
                restarts += each.event.data.restart
        answer = await _answer(second, turn_context)
        assert shown.strip() == answer.result.strip() == "All is paid, as [3] says."
        assert restarts <= 2
    assert last > EVENTS


@pytest.mark.parametrize("made", [False, True], ids=["before it was made", "after it was made"])
async def test_an_effect_whose_process_died_is_told_as_unknown_and_not_made_again(
    start_agent: Open, *, made: bool
) -> None:
    class Dying(DyingStore):
        async def reserve(self, *given: Any) -> Any:
            result = await super().reserve(*given)
            if not made:
                self.dead.set()
            await self.alive()
            return result

    turn_context = context()
    script = [reply("", ("pay", {"text": "x"})), reply("I do not know.")]
    first = start_agent(*script, store=Dying)
    first.tools.hang = True
    following = asyncio.create_task(first.follow(turn_context, REQUEST))
    await (first.tools.begun if made else first.store.dead).wait()
    await first.die()
    await following
    second = start_agent(*script[1:])
    events = await second.follow(turn_context, REQUEST, after=1)
    answer = events[-1].data
    assert (len(first.tools.made), second.tools.made) == (int(made), [])
    assert [(call.status, call.attempts) for call in answer.tool_calls] == [("unknown", 1)]
    assert (answer.status, answer.degraded) == ("degraded", ["tool:pay"])
    (result,) = second.tool_messages(0)
    assert (result.content, result.status) == (UNKNOWN.content, "error")


async def test_a_reservation_whose_reply_was_lost_is_made_again_and_the_effect_once(start_agent: Open) -> None:
    class Losing(DyingStore):
        lost = False

        async def reserve(self, *given: Any) -> Any:
            result = await super().reserve(*given)
            if not self.lost:
                self.lost = True
                raise StoreUnavailable("Redis did not answer")
            return result

    agent = start_agent(reply("", ("pay", {"text": "x"})), reply("Paid."), store=Losing)
    answer = await agent.ask()
    assert ([call.status for call in answer.tool_calls], len(agent.tools.made)) == (["ok"], 1)


async def test_a_call_that_ended_badly_is_told_by_another_process_as_it_was(start_agent: Open) -> None:
    turn_context = context()
    script = [reply("", ("broken", {"text": "x"}), ("echo", {})), reply("Sorry.")]
    whole = start_agent(*script)
    await whole.follow(context(session="whole"), REQUEST)
    first = start_agent(*script, store=dying_store(5))
    assert await killed(first, turn_context, REQUEST)
    second = start_agent(*script[1:])
    logged_calls = {_place(each): each.event.data for each in await first.store.read_entries(turn_context)}
    answer = (await second.follow(turn_context, REQUEST, after=5))[-1].data
    assert answer.tool_calls == [logged_calls[0], logged_calls[1]]
    assert [(call.status, call.attempts) for call in answer.tool_calls] == [("error", 2), ("error", 0)]
    assert (answer.status, answer.degraded) == ("degraded", ["tool:broken"])
    assert second.tool_messages(0) == whole.tool_messages(1)


async def test_a_search_by_words_alone_is_known_as_one_to_another_process(start_agent: Open) -> None:
    turn_context = context()
    script = [reply("", ("knowledge_search", {"query": "words"})), reply("As [1] says.")]
    first = start_agent(*script, store=dying_store(3))
    assert await killed(first, turn_context, REQUEST)
    answer = (await start_agent(*script[1:]).follow(turn_context, REQUEST, after=3))[-1].data
    assert (answer.status, answer.degraded) == ("degraded", ["retriever"])
    assert [citation.source for citation in answer.citations] == ["words1.md"]


async def test_steps_that_an_earlier_process_made_count_towards_their_limit(start_agent: Open) -> None:
    again, turn_context = reply("", ("echo", {"text": "again"})), context()
    first = start_agent(again, again, store=dying_store(3), max_steps=2)
    assert await killed(first, turn_context, REQUEST)
    second = start_agent(reply("What I know."), max_steps=2)
    events = await second.follow(turn_context, REQUEST, after=3)
    assert (events[-1].data.result, second.model.tools_bound) == ("What I know.", [0])


async def test_a_call_that_was_not_json_is_still_none_in_another_process(start_agent: Open) -> None:
    turn_context = context()
    first = start_agent(malformed("echo"), store=dying_store(2))
    assert await killed(first, turn_context, REQUEST)
    second = start_agent(reply("Understood."))
    answer = (await second.follow(turn_context, REQUEST, after=2))[-1].data
    assert [(call.status, call.attempts) for call in answer.tool_calls] == [("error", 0)]
    assert [message.tool_call_id for message in second.tool_messages(0)] == ["c0"]


async def test_what_a_provider_wants_to_read_again_reaches_it_from_another_process(start_agent: Open) -> None:
    content = [{"type": "thinking", "thinking": "Hm.", "signature": "c2lnbmVk"}, {"type": "text", "text": "Wait."}]
    signed = AIMessage(
        content,  # type: ignore[arg-type]
        id="m0",
        additional_kwargs={"reasoning_content": "Hm.", "extra": {"n": [1, None, "中"]}},
        tool_calls=[{"id": "c0", "name": "echo", "args": {"text": "x"}, "type": "tool_call"}],
    )
    whole = start_agent(signed, reply("Done."))
    await whole.ask()
    turn_context = context(session="cut")
    request = ChatRequest(user_input="hello", session_id="cut")
    first = start_agent(signed, store=dying_store(3))
    assert await killed(first, turn_context, request)
    second = start_agent(reply("Done."))
    await second.follow(turn_context, request, after=3)
    assert second.model.requests[0] == whole.model.requests[1]
    read = second.model.requests[0][2]
    assert (read.content, read.additional_kwargs) == (content, signed.additional_kwargs)


async def test_a_process_that_wakes_up_after_another_has_its_turn_does_nothing_more(start_agent: Open) -> None:
    turn_context, woken = context(), asyncio.Event()

    class Paused(DyingStore):
        async def append(self, appends: Any) -> Any:
            if any(isinstance(each.event.data, ToolCall) for one in appends for each in one.entries):
                self.dead.set()  # a pause, for once
                await woken.wait()
            return await super(DyingStore, self).append(appends)

    script = [reply("", ("echo", {"text": "x"})), reply("", ("pay", {"text": "y"})), reply("Paid.")]
    first = start_agent(*script, store=Paused)
    following = asyncio.create_task(first.follow(turn_context, REQUEST))
    await first.store.dead.wait()
    second = start_agent(*script[1:])
    events = await second.follow(turn_context, REQUEST, after=2)
    assert events[-1].data.result == "Paid."
    woken.set()
    seen = await asyncio.wait_for(following, 5)
    assert not any(event.last for event in seen)
    assert (len(first.model.requests), _made(first, second)) == (1, Counter({"x": 2, "y": 1}))
    assert await _answer(second, turn_context) == events[-1].data


async def test_a_process_that_lost_its_turn_makes_no_effect(start_agent: Open) -> None:
    turn_context, woken, asking = context(), asyncio.Event(), asyncio.Event()

    class Paused(DyingStore):
        async def reserve(self, *given: Any) -> Any:
            asking.set()
            await woken.wait()
            return await super().reserve(*given)

    script = [reply("", ("pay", {"text": "x"})), reply("Paid.")]
    first = start_agent(*script, store=Paused)
    following = asyncio.create_task(first.follow(turn_context, REQUEST))
    await asking.wait()
    second = start_agent(*script[1:])
    events = await second.follow(turn_context, REQUEST, after=2)
    woken.set()
    await asyncio.wait_for(following, 5)
    assert (first.tools.made, second.tools.made) == ([], [("x", f"{turn_context.run_id}:0:0")])
    assert [call.status for call in events[-1].data.tool_calls] == ["ok"]


async def test_a_call_that_hangs_with_its_process_is_made_again_and_ends(start_agent: Open) -> None:
    turn_context = context()
    script = [reply("", ("echo", {"text": "x"})), reply("Done.")]
    first = start_agent(*script, store=DyingStore)
    first.tools.hang = True
    following = asyncio.create_task(first.follow(turn_context, REQUEST))
    await first.tools.begun.wait()
    await first.die()
    await following
    second = start_agent(*script[1:])
    assert (await second.follow(turn_context, REQUEST, after=2))[-1].data.status == "success"
    assert first.tools.made == second.tools.made == [("x", f"{turn_context.run_id}:0:0")]


async def test_a_turn_that_is_handed_over_goes_on_in_another_process(start_agent: Open) -> None:
    turn_context, both_made = context(), asyncio.Event()
    script = [reply("", ("save", {"text": "x"}), ("pay", {"text": "y"})), reply("Done.")]
    first = start_agent(*script)

    async def hang(_: str) -> None:
        if len(first.tools.made) == 2:
            both_made.set()
        await never()

    first.tools.ending = hang
    following = asyncio.create_task(first.follow(turn_context, REQUEST))
    await both_made.wait()
    await asyncio.wait_for(first.worker.close(grace_s=0), 5)
    seen = await following
    assert [event.name for event in seen] == ["run", "tool_call", "tool_call"]
    second = start_agent(*script[1:])
    answer = (await second.follow(turn_context, REQUEST, after=seen[-1].id))[-1].data
    assert [call.status for call in answer.tool_calls] == ["ok", "unknown"]
    assert _made(first, second) == Counter({"x": 2, "y": 1})
