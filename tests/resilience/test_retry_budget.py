"""The retries of a request stay within its budget, also side by side."""

from __future__ import annotations

from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from serve_app.resilience.retry import RetryBudget


@given(st.integers(0, 10), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8))))
def test_calls_side_by_side_never_use_more_than_there_is(retries: int, calls: list[tuple[int, int]]) -> None:
    budget, used = RetryBudget(retries), 0
    with ExitStack() as running:
        for wanted, uses in calls:
            allowance = running.enter_context(budget.reserve(wanted))
            assert allowance.granted <= wanted
            allowance.used = min(uses, allowance.granted)
            used += allowance.used
        assert budget.left >= 0
    assert used + budget.left == retries


def test_what_is_not_used_is_there_for_the_next_call() -> None:
    budget = RetryBudget(3)
    with budget.reserve(3) as first:
        assert first.granted == 3
        with budget.reserve(1) as second:
            assert second.granted == 0
        first.used = 1
    assert budget.left == 2


@given(st.integers(0, 5), st.integers(0, 9))
def test_retries_that_are_taken_one_by_one_end_with_the_budget(retries: int, wanted: int) -> None:
    budget = RetryBudget(retries)
    assert [budget.take() for _ in range(wanted)] == [place < retries for place in range(wanted)]
    assert budget.left == max(0, retries - wanted)
