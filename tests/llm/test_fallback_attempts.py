"""Attempts, retry budget and deadline of a call, in virtual time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from serve_app.errors import InvalidRequest, ModelUnavailable, ServeAppError
from serve_app.llm.error_translation import ModelRefused, ModelTooSlow, RequestRefused
from serve_app.llm.fallback import FallbackModel, ModelCandidate
from serve_app.llm.guarded import GuardedModel
from serve_app.resilience.circuit_breaker import BreakerPolicy, GuardedCalls
from serve_app.resilience.retry import RetryBudget

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

HANGS = "hangs"


class Failing(BaseChatModel):
    """Fails with the errors in turn, then answers; remembers when it was asked. A number is an answer after so long."""

    errors: list[Any]
    at: list[float]

    @property
    def _llm_type(self) -> str:
        return "failing"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.at.append(asyncio.get_running_loop().time())
        error = self.errors.pop(0) if self.errors else None
        if error == HANGS:
            await asyncio.Event().wait()
        if isinstance(error, float):
            await asyncio.sleep(error)
        elif error:
            raise error
        return ChatResult(generations=[ChatGeneration(message=AIMessage("Hi."))])


def chain(*errors: list[Any], attempts: int = 2, failures: int = 5, timeout_s: float = 30) -> tuple[FallbackModel, Any]:
    """A chain of models that fail so, and when each of them was asked."""
    models = [Failing(errors=list(each), at=[]) for each in errors]
    clock = asyncio.get_running_loop().time
    limit = BreakerPolicy(failures=failures, cool_down_s=10)
    links = [
        ModelCandidate(GuardedModel(inner=model, timeout_s=timeout_s), GuardedCalls(f"m{place}", limit, clock))
        for place, model in enumerate(models)
    ]
    return FallbackModel(candidates=tuple(links), attempts=attempts), [model.at for model in models]


async def test_waits_double_from_half_a_second_to_four_seconds() -> None:
    one, (at,) = chain([ModelUnavailable("x")] * 5, attempts=6, failures=9)
    await one.ainvoke("hello")
    assert at == [0, 0.5, 1.5, 3.5, 7.5, 11.5]


async def test_a_provider_that_names_a_time_is_called_again_then() -> None:
    one, (at,) = chain([ModelUnavailable("x", 7), ModelUnavailable("x", 0)], attempts=3)
    await one.ainvoke("hello")
    assert at == [0, 7, 7]


async def test_no_wait_is_begun_that_would_end_past_the_deadline() -> None:
    one, (at,) = chain([ModelUnavailable("x", 7)])
    with pytest.raises(ModelUnavailable):
        await one.ainvoke("hello", deadline=time.time() + 6)
    assert at == [0]


async def test_a_long_wait_is_made_only_where_no_other_model_is_left() -> None:
    pair, (first, second) = chain([ModelUnavailable("x", 5)], [ModelUnavailable("x", 5)])
    await pair.ainvoke("hello")
    assert (first, second) == ([0], [0, 5])


async def test_a_time_out_is_tried_again_only_where_no_other_model_is_left() -> None:
    pair, (first, second) = chain([HANGS], [HANGS])
    await pair.ainvoke("hello")
    assert (first, second) == ([0], [30, 60.5])


async def test_a_fallback_that_is_left_alone_is_no_other_model() -> None:
    pair, (first, second) = chain([ModelUnavailable("x", 5)], [], failures=2)
    for _ in range(2):
        with pytest.raises(ValueError, match="x"), pair.candidates[1].circuit.guard(ModelUnavailable, (ValueError,)):
            raise ValueError("x")
    await pair.ainvoke("hello")
    assert (first, second) == ([0, 5], [])


async def test_a_breaker_that_opens_ends_the_tries_of_its_model() -> None:
    pair, (first, second) = chain([ModelUnavailable("x")] * 9, [], attempts=5, failures=3)
    await pair.ainvoke("hello")
    assert (first, second) == ([0, 0.5, 1.5], [1.5])


async def test_a_probe_that_is_cancelled_leaves_the_next_call_to_probe() -> None:
    one, (at,) = chain([ModelUnavailable("x"), HANGS], attempts=1, failures=1)
    with pytest.raises(ModelUnavailable):
        await one.ainvoke("hello")
    await asyncio.sleep(10)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(one.ainvoke("hello"), 1)
    assert (await one.ainvoke("hello")).text == "Hi."
    assert at == [0, 10, 11]


async def test_of_many_calls_one_probes_a_model_that_was_left_alone() -> None:
    pair, (first, second) = chain([ModelUnavailable("x"), 0.5], [], attempts=1, failures=1)
    await pair.ainvoke("hello")
    await asyncio.sleep(10)
    await asyncio.gather(*(pair.ainvoke("hello") for _ in range(9)))
    assert (first, len(second)) == ([0, 10], 1 + 8)


ERRORS = st.sampled_from([ModelUnavailable("x"), ModelUnavailable("x", 1), ModelTooSlow("x"), ModelRefused("x")])
OTHERS = st.sampled_from([RequestRefused("x"), InvalidRequest("x"), HANGS])


@settings(deadline=None)
@given(
    errors=st.lists(st.lists(ERRORS | OTHERS | st.none(), max_size=6), min_size=1, max_size=4),
    attempts=st.integers(1, 4),
    retries=st.integers(0, 5),
    calls=st.integers(1, 3),
)
async def test_calls_side_by_side_stay_within_attempts_and_budget(
    errors: list[list[Any]], attempts: int, retries: int, calls: int
) -> None:
    models, call_times = chain(*errors, attempts=attempts, failures=4)
    budget = RetryBudget(retries)
    ends = await asyncio.gather(*(models.ainvoke("hello", budget=budget) for _ in range(calls)), return_exceptions=True)
    assert all(isinstance(end, AIMessage | ServeAppError) for end in ends)
    made = [len(at) for at in call_times]
    assert all(each <= calls * attempts for each in made)
    assert sum(made) <= calls * len(models.candidates) + retries - budget.left
    assert 0 <= budget.left <= retries
