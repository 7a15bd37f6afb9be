"""The fallback model over a real server: which model answers, and after how many calls."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from stub_server import SECRET_TEXT

from serve_app.config import ModelSettings
from serve_app.errors import DeadlineExceeded, ModelUnavailable
from serve_app.llm.error_translation import FAILED, TOO_LONG, TOO_MANY, ContextOverflow, ModelRefused, ToolsRefused
from serve_app.llm.fallback import FallbackModel, ModelCandidate
from serve_app.llm.guarded import GuardedModel
from serve_app.llm.models import build_model
from serve_app.llm.provider_messages import FALLBACK, MODEL, RESTART
from serve_app.resilience.circuit_breaker import BreakerPolicy, GuardedCalls
from serve_app.resilience.retry import RetryBudget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from langchain_core.messages import AIMessageChunk
    from stub_server import Stub

BOTH = pytest.mark.parametrize("streaming", [False, True])
WHOLE = "Hello from the stub."


class Pair:
    """A model of the given moods and a fallback; both have names that no other test has."""

    def __init__(self, stub: Stub, moods: list[str], fallback: str = "well", **changed: Any) -> None:
        self.stub = stub
        self.primary, self.fallback = f"primary-{uuid4().hex}", f"fallback-{uuid4().hex}"
        stub.moods[self.primary], stub.moods[self.fallback] = list(moods), [fallback] * 50
        fallbacks = [{"name": f"openai:{self.fallback}", "base_url": stub.url, "timeout_s": 5}]
        settings = {"base_url": stub.url, "timeout_s": 5, "fallbacks": fallbacks, **changed}
        self.chain: FallbackModel = build_model(ModelSettings(name=f"openai:{self.primary}", **settings))

    @property
    def calls(self) -> tuple[int, int]:
        """How often each was asked."""
        return self.stub.count_requests(self.primary), self.stub.count_requests(self.fallback)

    async def ask(self, *, streaming: bool = False, **given: Any) -> str:
        if not streaming:
            return (await self.chain.ainvoke("hello", **given)).text
        return "".join([chunk.text async for chunk in self.chain.astream("hello", **given)])


async def _read(stream: AsyncIterator[AIMessageChunk], into: list[str]) -> None:
    async for chunk in stream:
        into.append(chunk.text)  # noqa: PERF401 - what came before it breaks is kept


async def _pieces(chain: FallbackModel, **given: Any) -> list[AIMessageChunk]:
    return [chunk async for chunk in chain.astream("hello", restarts=True, **given)]


@BOTH
@pytest.mark.parametrize("mood", ["broken@0", "rate-limited@0", "overloaded@", "garbage"])
async def test_a_failure_that_may_pass_costs_two_calls_and_then_one_of_the_fallback(
    stub: Stub, mood: str, *, streaming: bool
) -> None:
    pair = Pair(stub, [mood] * 9)
    assert await pair.ask(streaming=streaming) == WHOLE
    assert pair.calls == (2, 1)


@BOTH
async def test_a_failure_that_passes_is_no_switch(stub: Stub, *, streaming: bool) -> None:
    pair = Pair(stub, ["broken@0"])
    assert await pair.ask(streaming=streaming) == WHOLE
    assert pair.calls == (2, 0)


@BOTH
@pytest.mark.parametrize("mood", ["wrong-key", "unknown-model", "bad-request", "rate-limited", "broken@60"])
async def test_what_stays_or_asks_for_a_long_wait_is_not_tried_again_where_another_model_is(
    stub: Stub, mood: str, *, streaming: bool
) -> None:
    pair = Pair(stub, [mood] * 9)
    begun = time.monotonic()
    assert await pair.ask(streaming=streaming) == WHOLE
    assert pair.calls == (1, 1)
    assert time.monotonic() - begun < 2


@BOTH
async def test_a_model_that_hangs_costs_one_time_out(stub: Stub, *, streaming: bool) -> None:
    pair = Pair(stub, ["silent"] * 9, timeout_s=0.4)
    assert await pair.ask(streaming=streaming) == WHOLE
    assert pair.calls == (1, 1)


@BOTH
async def test_after_an_overflow_only_a_model_that_may_read_more_is_called(stub: Stub, *, streaming: bool) -> None:
    pair = Pair(stub, ["too-long"] * 9, breaker_failures=1)
    for _ in range(2):
        await pair.ask(streaming=streaming)
    assert pair.calls == (2, 2)
    pair.chain.candidates[0].context_tokens = pair.chain.candidates[1].context_tokens = 8000
    with pytest.raises(ContextOverflow, match=TOO_LONG):
        await pair.ask(streaming=streaming)
    assert pair.calls == (3, 2)


async def test_an_overflow_of_the_only_model_that_is_well_is_reported_as_one(stub: Stub) -> None:
    pair = Pair(stub, ["broken@0"] * 9, fallback="too-long")
    with pytest.raises(ContextOverflow, match=TOO_LONG):
        await pair.ask()
    assert pair.calls == (2, 1)


@BOTH
async def test_when_all_fail_the_first_models_error_is_raised_with_the_shortest_wait(
    stub: Stub, *, streaming: bool
) -> None:
    pair = Pair(stub, ["rate-limited@60"] * 9, fallback="broken@40")
    with pytest.raises(ModelUnavailable, match=TOO_MANY) as failed:
        await pair.ask(streaming=streaming, deadline=time.time() + 20)
    assert (failed.value.retry_after_s, failed.value.retryable) == (40, True)
    assert pair.calls == (1, 1)


@pytest.mark.parametrize(("fallback", "retryable"), [("forbidden", False), ("broken@0", True)])
async def test_trying_again_may_help_where_it_helps_one_of_the_models(
    stub: Stub, fallback: str, *, retryable: bool
) -> None:
    pair = Pair(stub, ["wrong-key"] * 9, fallback=fallback)
    with pytest.raises(ModelUnavailable) as failed:
        await pair.ask()
    assert (failed.value.retryable, isinstance(failed.value, ModelRefused)) == (retryable, not retryable)


@BOTH
async def test_a_model_that_fails_again_and_again_is_left_alone_and_comes_back_by_one_call(
    stub: Stub, *, streaming: bool
) -> None:
    pair, now = Pair(stub, ["broken@0"] * 4, breaker_failures=3, cool_down_s=10), [0.0]
    pair.chain.candidates[0].circuit._clock = lambda: now[0]
    asks = [await pair.ask(streaming=streaming) for _ in range(3)]
    assert asks == [WHOLE] * 3
    assert pair.calls == (3, 3)  # two tries, one that opens the breaker, none
    now[0] = 10
    await pair.ask(streaming=streaming)
    await pair.ask(streaming=streaming)
    assert pair.calls == (4, 5)  # a probe that fails, none
    now[0] = 20
    await pair.ask(streaming=streaming)
    await pair.ask(streaming=streaming)
    assert pair.calls == (6, 5)


async def test_what_one_request_says_never_opens_the_breaker_for_others(stub: Stub) -> None:
    pair = Pair(stub, ["bad-request"] * 9, breaker_failures=2)
    for _ in range(4):
        await pair.ask()
    assert pair.calls == (4, 4)


async def test_a_call_that_is_cancelled_is_no_failure_of_the_model(stub: Stub) -> None:
    pair = Pair(stub, ["silent"] * 2, breaker_failures=1)
    for made in (1, 2):
        call = asyncio.create_task(pair.ask(streaming=True))
        while pair.calls[0] < made:  # noqa: ASYNC110 - another thread is waited for
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert await pair.ask() == WHOLE
    assert pair.calls == (3, 0)


async def test_when_no_model_may_be_called_the_caller_learns_when_to_come_back(stub: Stub) -> None:
    pair = Pair(stub, ["broken@0"] * 9, fallback="broken@0", breaker_failures=1, cool_down_s=9)
    with pytest.raises(ModelUnavailable, match=FAILED):
        await pair.ask()
    with pytest.raises(ModelUnavailable) as refused:
        await pair.ask()
    assert pair.calls == (1, 1)
    assert refused.value.retry_after_s is not None
    assert 8 < refused.value.retry_after_s <= 9


async def test_checks_name_each_model_and_require_none_while_another_is_called(stub: Stub) -> None:
    pair = Pair(stub, ["broken@0"] * 9, breaker_failures=1, cool_down_s=9)
    names = [f"model:openai:{pair.primary}", f"model:openai:{pair.fallback}"]
    assert [(each.name, each.ok, each.required) for each in pair.chain.checks()] == [
        (name, True, False) for name in names
    ]
    await pair.ask()
    first, second = pair.chain.checks()
    assert (first.ok, first.required, second.ok) == (False, False, True)
    assert first.reason == "It failed repeatedly; its circuit breaker stays open for 9 s"
    stub.moods[pair.fallback] = ["broken@0"] * 9
    with pytest.raises(ModelUnavailable):
        await pair.ask()
    assert [(each.ok, each.required) for each in pair.chain.checks()] == [(False, True)] * 2


@pytest.mark.parametrize(("retries", "calls"), [(0, (1, 1)), (1, (2, 1)), (9, (3, 1))])
async def test_retries_are_taken_from_the_requests_budget(stub: Stub, retries: int, calls: tuple[int, int]) -> None:
    pair, budget = Pair(stub, ["broken@0"] * 9, attempts=3), RetryBudget(retries)
    await pair.ask(budget=budget)
    assert pair.calls == calls
    assert budget.left == retries - (calls[0] - 1)


@BOTH
async def test_no_try_outlasts_the_deadline_whatever_is_left_to_ask(stub: Stub, *, streaming: bool) -> None:
    pair = Pair(stub, ["silent"] * 9)
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await pair.ask(streaming=streaming, deadline=time.time() + 1)
    assert time.monotonic() - begun < 3
    assert pair.calls == (1, 0)


@pytest.mark.parametrize("mood", ["cut", "error-frame", "garbage-frame", "stalls"])
async def test_a_stream_that_breaks_goes_on_with_the_next_model_and_says_where(stub: Stub, mood: str) -> None:
    pair = Pair(stub, [mood] * 9, attempts=1, timeout_s=1)
    chunks = await _pieces(pair.chain)
    marked = [place for place, chunk in enumerate(chunks) if chunk.response_metadata.get(RESTART)]
    assert len(marked) == 1
    before, after = chunks[: marked[0]], chunks[marked[0] :]
    assert "".join(chunk.text for chunk in before) == "Hello from "
    assert "".join(chunk.text for chunk in after) == WHOLE
    assert after[0].response_metadata[MODEL] == f"openai:{pair.fallback}"
    assert pair.calls == (1, 1)


async def test_a_stream_that_breaks_goes_on_with_the_next_try_of_the_same_model(stub: Stub) -> None:
    pair = Pair(stub, ["cut"])
    chunks = await _pieces(pair.chain)
    assert "".join(chunk.text for chunk in chunks) == "Hello from " + WHOLE
    assert not any(chunk.response_metadata.get(FALLBACK) for chunk in chunks)
    assert pair.calls == (2, 0)


async def test_a_reader_who_does_not_ask_for_restarts_is_never_given_two_answers_in_one(stub: Stub) -> None:
    pair, came = Pair(stub, ["cut"] * 9), []
    with pytest.raises(ModelUnavailable):
        await _read(pair.chain.astream("hello"), came)
    assert "".join(came) == "Hello from "
    assert pair.calls == (1, 0)


@BOTH
@pytest.mark.parametrize("failing", [False, True])
async def test_a_reply_says_which_model_gave_it(stub: Stub, *, failing: bool, streaming: bool) -> None:
    pair = Pair(stub, ["wrong-key"] if failing else [])
    reply: Any = None
    if streaming:
        for chunk in await _pieces(pair.chain):
            reply = chunk if reply is None else reply + chunk
    else:
        reply = await pair.chain.ainvoke("hello")
    assert reply.response_metadata[MODEL] == f"openai:{pair.fallback if failing else pair.primary}"
    assert reply.response_metadata.get(FALLBACK, False) is failing


@BOTH
async def test_tools_are_bound_for_the_model_that_is_called(stub: Stub, *, streaming: bool) -> None:
    pair = Pair(stub, ["wrong-key"])
    function = {"name": "order_query", "description": "Look up an order.", "parameters": {"type": "object"}}
    bound = pair.chain.bind_tools([{"type": "function", "function": function}], tool_choice="any")
    if streaming:
        async for _ in bound.astream("where?"):
            pass
    else:
        await bound.ainvoke("where?")
    bodies = [body for _, body in stub.seen if body["model"] in {pair.primary, pair.fallback}]
    assert [body["tools"][0]["function"]["name"] for body in bodies] == ["order_query"] * 2
    assert [body["tool_choice"] for body in bodies] == ["required"] * 2


@BOTH
async def test_a_class_that_takes_no_tools_says_so_as_a_model_that_refuses_them(*, streaming: bool) -> None:
    model = GuardedModel(inner=GenericFakeChatModel(messages=iter([AIMessage("Hi.")])), timeout_s=5)
    chain = FallbackModel(
        candidates=(ModelCandidate(model, GuardedCalls("plain", BreakerPolicy(failures=5, cool_down_s=10))),),
        attempts=1,
    )
    bound = chain.bind_tools([{"type": "function", "function": {"name": "pay", "parameters": {}}}])
    with pytest.raises(ToolsRefused):
        await anext(bound.astream("hello")) if streaming else await bound.ainvoke("hello")
    assert (await chain.ainvoke("hello")).text == "Hi."


async def test_the_offline_model_may_be_the_last_resort(stub: Stub) -> None:
    pair = Pair(stub, ["wrong-key"], fallbacks=[{"name": "offline"}])
    reply = await pair.chain.ainvoke("hello")
    assert reply.text
    assert reply.response_metadata[MODEL] == "offline"


async def test_each_switch_is_one_line_of_the_log_without_the_providers_words(
    stub: Stub, caplog: pytest.LogCaptureFixture
) -> None:
    pair = Pair(stub, ["broken@0"] * 9)
    with caplog.at_level(logging.WARNING, logger="serve_app.llm.fallback"):
        await pair.ask()
    switches = [each for each in caplog.records if each.name == "serve_app.llm.fallback"]
    logged = [(each.getMessage(), each.model, each.after, each.error) for each in switches]
    assert logged == [("model_switched", f"openai:{pair.fallback}", f"openai:{pair.primary}", FAILED)]
    assert SECRET_TEXT not in caplog.text
