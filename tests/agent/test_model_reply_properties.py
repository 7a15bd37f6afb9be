"""The seven outcomes that nobody may see, over generated replies of a model at the end of a real HTTP connection."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from agent_in_process import InProcessAgent, open_agent, use_data_dir
from hypothesis import HealthCheck, given, settings
from random_replies import MEANS_BOOK, THOUGHT, Plan, is_unambiguous, plans
from replies_of_calls import CALLS
from replies_of_ends import STOPS
from replies_of_text import TEXTS
from reply_kinds import NEXT, NEXT_ANSWER, answer_by_kind, plain_reply
from reply_tools import deeds_file
from strict_provider import run_provider
from turn_checks import find_differences, find_faults

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from reply_kinds import ReplyKind
    from strict_provider import HttpReply, ModelRequest
    from turn_checks import PlayedTurn, TurnResponse

KINDS = [*CALLS, *TEXTS, *STOPS]
BYSTANDER_S = 10.0
"""What another's turn may take beside an odd reply: far more than on a busy machine."""
few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
many = settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(repr=False)
class Room:
    """An agent in this process, and the loop in which it lives."""

    runner: asyncio.Runner
    agent: InProcessAgent

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def play(self, kind: ReplyKind, *, stream: bool) -> PlayedTurn:
        """A turn with a reply that is known."""
        provider = self.agent.provider
        provider.answer = answer_by_kind(KINDS)
        played: PlayedTurn = self.run(self.agent.play(kind, stream=stream))
        assert not provider.failures, provider.failures
        return played

    @contextmanager
    def another(self, redis_url: str, **model: Any) -> Iterator[None]:
        """An agent with other settings of its model is in the place of the usual one, for the block."""
        usual, stack = self.agent, AsyncExitStack()
        usual.provider.requests.clear()
        self.agent = self.run(stack.enter_async_context(open_agent(redis_url, usual.provider, **model)))
        try:
            yield
        finally:
            self.run(stack.aclose())
            self.agent = usual

    def see(self, plan: Plan) -> list[Seen]:
        """What turns with the reply come to: one that is not streamed, and one that is."""
        return [self.run(self._see(plan, stream=each)) for each in (False, True)]

    async def _see(self, plan: Plan, *, stream: bool) -> Seen:
        kind, before = plan.make_kind(), _deeds()
        self.agent.provider.answer = answer_by_kind([kind])
        bystander = asyncio.create_task(self.agent.ask(NEXT, "bystander", stream=False))
        played = await self.agent.play(kind, stream=stream)
        done = [line.split(" ", 1) for line in _deeds()[len(before) :]]
        failures, self.agent.provider.failures = self.agent.provider.failures, []
        assert not failures, failures
        sent = [each for each in self.agent.provider.requests if each.step or each.user == NEXT]
        self.agent.provider.requests.clear()
        return Seen(
            plan=plan,
            turn=played.turn,
            response=played.response,
            after=played.after,
            bystander=await bystander,
            deeds=[deed for turn, deed in done if turn in {played.turn, "nobody"}],
            refused=played.refused,
            sent_back=json.dumps([each.body["messages"] for each in sent]),
            results=[line for each in sent if each.user != NEXT for line in each.results],
        )


@dataclass(frozen=True)
class Seen:
    """One turn with a generated reply, and all that came of it."""

    plan: Plan
    turn: str
    response: TurnResponse
    after: TurnResponse
    bystander: TurnResponse
    deeds: list[str]
    refused: tuple[str, ...]
    sent_back: str
    """What the model was sent after the reply."""
    results: list[str]

    @property
    def allowed(self) -> list[str]:
        """The most that may be done."""
        whole = self.plan.complete or self.plan.mends
        empty = [each for each in self.plan.bookings if each.form in {"empty", "null"} and each.name in MEANS_BOOK]
        if not whole and self.plan.cut_at is None:
            return []
        return [*self.plan.booked, *self.plan.doubles, *("book 900" for _ in empty)]


def _deeds() -> list[str]:
    return deeds_file().read_text().splitlines() if deeds_file().exists() else []


@pytest.fixture(scope="module")
def room(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """An agent whose provider's replies are generated; a failed call is tried again at once."""
    patch = pytest.MonkeyPatch()
    patch.setattr("serve_app.llm.fallback.WAIT_MIN_S", 0.01)
    with use_data_dir(tmp_path_factory.mktemp("deeds")), run_provider(_plain) as provider, asyncio.Runner() as runner:
        stack = AsyncExitStack()
        opened = runner.run(stack.enter_async_context(open_agent(redis_url, provider)))
        yield Room(runner, opened)
        runner.run(stack.aclose())
    patch.undo()


def _plain(ask: ModelRequest) -> HttpReply:
    return plain_reply(ask, NEXT_ANSWER)


def _done_unsent(seen: Seen) -> Counter[str]:
    return Counter(seen.deeds) - Counter(seen.allowed)


@few
@given(plan=plans(calls=True))
def test_no_deed_is_done_with_arguments_that_the_model_did_not_send(room: Room, plan: Plan) -> None:
    for seen in room.see(plan):
        assert not _done_unsent(seen), (seen.deeds, seen.response.body)


@few
@given(plan=plans(calls=True, complete=True).filter(is_unambiguous))
def test_all_that_a_whole_reply_asks_for_is_done_and_told_as_done(room: Room, plan: Plan) -> None:
    for seen in room.see(plan):
        assert Counter(seen.deeds) == Counter(seen.allowed), seen.response.body
        assert not _misreports_deeds(seen)


@few
@given(plan=plans(calls=True))
def test_no_deed_is_told_as_failed(room: Room, plan: Plan) -> None:
    for seen in room.see(plan):
        assert not _misreports_deeds(seen), (seen.deeds, seen.response.body, seen.results)


def _misreports_deeds(seen: Seen) -> bool:
    """Returns whether client or model received another number of deeds than were done."""
    reported = sum(each["status"] == "ok" for each in seen.response.body.get("tool_calls", []))
    to_model = sum(each.startswith("booked") for each in seen.results)
    if "error" in seen.response.body:
        return to_model < len(seen.deeds)
    return reported != len(seen.deeds) or to_model < len(seen.deeds)


@few
@given(plan=plans(complete=True).filter(is_unambiguous))
def test_a_reply_has_one_meaning_whichever_way_it_is_asked_for(room: Room, plan: Plan) -> None:
    whole, streamed = room.see(plan)
    assert whole.response.meaning(whole.turn) == streamed.response.meaning(streamed.turn)


@few
@given(plan=plans())
def test_the_next_message_of_the_session_is_answered(room: Room, plan: Plan) -> None:
    for seen in room.see(plan):
        assert (seen.after.outcome, seen.after.body.get("result")) == ("success", NEXT_ANSWER), seen.after.body
        assert not seen.refused


@few
@given(plan=plans())
def test_a_bystander_is_neither_failed_nor_kept_waiting(room: Room, plan: Plan) -> None:
    for seen in room.see(plan):
        assert seen.bystander.outcome == "success", seen.bystander.body
        assert seen.bystander.took_s < BYSTANDER_S


@few
@given(plan=plans(thinks=True))
def test_no_thinking_is_in_an_answer_or_remembered_as_one(room: Room, plan: Plan) -> None:
    for seen in room.see(plan):
        assert THOUGHT not in seen.response.shown
        remembered = [each["content"] for each in _messages(seen) if each["role"] == "assistant"]
        assert THOUGHT not in json.dumps(remembered)


def _messages(seen: Seen) -> list[dict[str, Any]]:
    return [message for messages in json.loads(seen.sent_back) for message in messages]


@few
@given(plan=plans())
def test_no_reply_is_an_error_of_ours(room: Room, plan: Plan) -> None:
    for seen in room.see(plan):
        assert seen.response.outcome in {"success", "degraded", "model_unavailable"}, seen.response.body


@pytest.mark.long
@many
@given(plan=plans())
def test_none_of_the_seven_outcomes_is_seen(room: Room, plan: Plan) -> None:
    both = room.see(plan)
    for seen in both:
        assert not _done_unsent(seen)
        assert not _misreports_deeds(seen)
        assert (seen.after.outcome, seen.after.body.get("result")) == ("success", NEXT_ANSWER)
        assert seen.bystander.outcome == "success"
        assert seen.bystander.took_s < BYSTANDER_S
        assert THOUGHT not in seen.response.shown
        assert seen.response.outcome in {"success", "degraded", "model_unavailable"}
    if plan.complete and is_unambiguous(plan):
        assert both[0].response.meaning(both[0].turn) == both[1].response.meaning(both[1].turn)


@pytest.mark.long  # the service's own test has the same table
def test_each_kind_of_reply_that_is_known_comes_to_what_its_model_said(room: Room) -> None:
    played = [(room.play(each, stream=False), room.play(each, stream=True)) for each in KINDS]
    found = [line for both in played for each in both for line in find_faults(each)]
    found += [line for whole, streamed in played for line in find_differences(whole, streamed)]
    assert not found, "\n".join(found)


@pytest.mark.long
def test_a_model_that_is_always_asked_for_a_stream_says_the_same(redis_url: str, room: Room) -> None:
    with room.another(redis_url, stream="always"):
        played = [replace(room.play(each, stream=False), stream=True) for each in KINDS]
    assert all(each.stream for each in room.agent.provider.requests)
    found = [line for each in played for line in find_faults(each)]
    assert not found, "\n".join(found)


@pytest.mark.long
def test_a_model_of_another_package_is_held_to_the_same_checks(
    redis_url: str, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD_KEY", "none")
    options = {"base_url": room.agent.provider.url, "model": "odd", "max_retries": 0, "timeout": 5}
    package = {
        "name": "langchain_openai.chat_models:ChatOpenAI",
        "base_url": None,
        "options": options,
        "api_key_env": "ODD_KEY",
    }
    found = []
    with room.another(redis_url, **package):
        for kind, stream in itertools.product([*CALLS, *STOPS], (False, True)):
            seen = room.play(kind, stream=stream)
            most = [Counter(right.deeds) for right in (*kind.right, *kind.streamed_right)]
            if not any(Counter(seen.deeds) <= each for each in most):
                found.append(f"{kind.name}: did {seen.deeds}")
            if seen.response.outcome == "internal" or seen.after.body.get("result") != NEXT_ANSWER or seen.refused:
                found.append(f"{kind.name}: {seen.response.outcome}, then {seen.after.outcome} {seen.refused}")
    assert not found, "\n".join(found)
