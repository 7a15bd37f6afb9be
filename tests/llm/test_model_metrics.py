"""Each model call is counted by its outcome, with tokens, retries and fallbacks."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from serve_app.config import ModelSettings
from serve_app.errors import ServeAppError
from serve_app.llm.models import build_model
from serve_app.observability.metric_catalogue import MODEL_CALLS, MODEL_FALLBACKS, MODEL_RETRIES, MODEL_S, MODEL_TOKENS
from serve_app.observability.metrics import InMemoryMetrics

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from langchain_core.language_models import BaseChatModel
    from stub_server import Stub

BOTH = pytest.mark.parametrize("streaming", [False, True])


class Measured:
    """A model of the given moods, with a fallback where one is named, and what is counted of them."""

    def __init__(self, stub: Stub, moods: list[str], fallback: str | None = None, **changed: Any) -> None:
        names = [f"measured-{uuid4().hex}" for _ in range(2)]
        stub.moods[names[0]], stub.moods[names[1]] = moods, [fallback or ""] * 9
        self.first, self.second = (f"openai:{each}" for each in names)
        self.metrics = InMemoryMetrics()
        fallbacks = [{"name": self.second, "base_url": stub.url}] if fallback else []
        given = {"base_url": stub.url, "timeout_s": 0.6, "fallbacks": fallbacks, **changed}
        self.chain: BaseChatModel = build_model(ModelSettings(name=self.first, **given), self.metrics)

    async def ask(self, *, streaming: bool = False, **given: Any) -> None:
        if streaming:
            async for _ in self.chain.astream("hello", **given):
                pass
        else:
            await self.chain.ainvoke("hello", **given)

    def outcomes(self) -> dict[tuple[str, str], float]:
        """By which of the two, and how."""
        which = {self.first: "first", self.second: "second"}
        counts = {(which[model[1]], how[1]): count for (model, how), count in self.metrics.counted[MODEL_CALLS].items()}
        observed = sum(len(values) for values in self.metrics.observed[MODEL_S].values())
        assert observed == sum(counts.values())
        return counts


@BOTH
async def test_a_call_that_goes_well_is_one_with_its_tokens(stub: Stub, *, streaming: bool) -> None:
    measured = Measured(stub, [])
    await measured.ask(streaming=streaming)
    assert measured.outcomes() == {("first", "ok"): 1}
    tokens = {labels[1][1]: count for labels, count in measured.metrics.counted[MODEL_TOKENS].items()}
    assert tokens == {"input": 11, "output": 7}
    assert not measured.metrics.of(MODEL_RETRIES)
    assert not measured.metrics.of(MODEL_FALLBACKS)


@BOTH
@pytest.mark.parametrize(
    ("mood", "outcome"),
    [
        ("rate-limited@0", "rate_limited"),
        ("broken@0", "unavailable"),
        ("wrong-key", "refused"),
        ("bad-request", "refused"),
        ("too-long", "refused"),
        ("garbage", "unreadable"),
        ("silent", "timeout"),
    ],
)
async def test_a_call_that_fails_is_counted_by_its_kind(
    stub: Stub, mood: str, outcome: str, *, streaming: bool
) -> None:
    measured = Measured(stub, [mood], attempts=1)
    with pytest.raises(ServeAppError):
        await measured.ask(streaming=streaming)
    assert measured.outcomes() == {("first", outcome): 1}
    assert not measured.metrics.of(MODEL_TOKENS)


@BOTH
async def test_a_retry_and_a_fallback_are_counted_by_their_models(stub: Stub, *, streaming: bool) -> None:
    measured = Measured(stub, ["broken@0", "broken@0"], fallback="well")
    await measured.ask(streaming=streaming)
    assert measured.outcomes() == {("first", "unavailable"): 2, ("second", "ok"): 1}
    assert measured.metrics.of(MODEL_RETRIES) == {measured.first: 1}
    assert measured.metrics.of(MODEL_FALLBACKS) == {measured.second: 1}


async def test_a_fallback_that_fails_too_stood_in_for_nobody(stub: Stub) -> None:
    measured = Measured(stub, ["broken"], fallback="broken", attempts=1)
    with pytest.raises(ServeAppError):
        await measured.ask()
    assert measured.outcomes() == {("first", "unavailable"): 1, ("second", "unavailable"): 1}
    assert not measured.metrics.of(MODEL_FALLBACKS)


async def test_a_request_whose_time_runs_out_counts_as_a_time_out(stub: Stub) -> None:
    measured = Measured(stub, ["silent"], timeout_s=30)
    with pytest.raises(ServeAppError):
        await measured.ask(deadline=time.time() + 0.3)
    assert measured.outcomes() == {("first", "timeout"): 1}


async def test_a_call_that_is_given_up_is_no_failure(stub: Stub) -> None:
    measured = Measured(stub, ["silent"], timeout_s=30)
    call = asyncio.create_task(measured.ask())
    await asyncio.sleep(0.3)
    assert stub.count_requests(measured.first.partition(":")[2]) == 1
    call.cancel()
    await asyncio.wait({call})
    assert measured.outcomes() == {("first", "cancelled"): 1}


async def test_a_stream_that_is_left_is_no_failure(stub: Stub) -> None:
    measured = Measured(stub, ["drips"], timeout_s=30)
    stream: AsyncGenerator[Any, None] = measured.chain.astream("hello")  # type: ignore[assignment]
    await anext(stream)
    await stream.aclose()
    assert measured.outcomes() == {("first", "cancelled"): 1}
