"""The time that a process gives a request, whatever its clock shows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import DeadlineExceeded
from serve_app.resilience.deadline import call_timeout_s, local_deadline, remaining_s
from serve_app.values import Context

PACKAGE = Path(__file__).parents[2] / "serve_app"

times = st.floats(0, 4e9)
wholes = st.floats(0.001, 3600)
skews = st.floats(-1e9, 1e9)
"""How far a clock is ahead."""


def _context(deadline: float, whole_s: float) -> Context:
    return Context(request_id="r", run_id="r", session_id="s", deadline=deadline, timeout_s=whole_s)


@given(times, wholes, skews, st.floats(0, 7200))
def test_no_request_is_given_more_than_its_whole_time_or_less_than_none(
    begun: float, whole_s: float, skew_s: float, later_s: float
) -> None:
    now = begun + later_s + skew_s
    left_s = remaining_s(local_deadline(_context(begun + whole_s, whole_s), now), now)
    assert 0 <= left_s <= whole_s + 1e-6


@given(times, wholes, st.floats(0, 7200))
def test_by_a_clock_that_is_right_the_deadline_is_kept(begun: float, whole_s: float, later_s: float) -> None:
    now = begun + later_s
    left_s = remaining_s(local_deadline(_context(begun + whole_s, whole_s), now), now)
    assert left_s == pytest.approx(max(0.0, whole_s - later_s), abs=1e-5)


@given(times, wholes, skews, st.lists(st.floats(0, 100), min_size=1))
def test_what_is_left_shrinks_as_time_passes_and_comes_to_an_end(
    begun: float, whole_s: float, skew_s: float, pauses_s: list[float]
) -> None:
    arrived = begun + skew_s
    given_up_at = local_deadline(_context(begun + whole_s, whole_s), arrived)
    now, before_s = arrived, remaining_s(given_up_at, arrived)
    for pause_s in pauses_s:
        now += pause_s
        left_s = remaining_s(given_up_at, now)
        assert left_s <= before_s
        assert left_s == pytest.approx(max(0.0, before_s - pause_s), abs=1e-5)
        before_s = left_s
    assert remaining_s(given_up_at, arrived + whole_s + 1e-5) == 0


@given(times, wholes, skews, skews)
def test_a_clock_that_is_further_ahead_never_gives_more(begun: float, whole_s: float, one: float, other: float) -> None:
    context = _context(begun + whole_s, whole_s)
    less, more = (
        remaining_s(local_deadline(context, begun + skew_s), begun + skew_s)
        for skew_s in sorted((one, other), reverse=True)
    )
    assert less <= more + 1e-5


@given(times, wholes, times, st.floats(0.001, 100))
def test_a_call_gets_the_shorter_of_its_time_out_and_what_is_left_and_none_begins_without(
    deadline: float, whole_s: float, now: float, timeout_s: float
) -> None:
    given_up_at = local_deadline(_context(deadline, whole_s), now)
    left_s = remaining_s(given_up_at, now)
    if left_s == 0:
        with pytest.raises(DeadlineExceeded):
            call_timeout_s(given_up_at, timeout_s, now)
    else:
        assert call_timeout_s(given_up_at, timeout_s, now) == min(timeout_s, left_s)


def test_what_a_version_before_this_one_sends_has_a_whole_time_too() -> None:
    old = Context.model_validate_json('{"request_id":"r","run_id":"r","session_id":"s","deadline":9e9}')
    assert remaining_s(local_deadline(old, 0), 0) == 3600


def test_a_context_keeps_its_whole_time_on_its_way_through_json() -> None:
    context = _context(1e9, 7)
    assert Context.model_validate_json(context.model_dump_json()) == context


def test_no_other_module_reads_the_deadline_of_a_context() -> None:
    """Whoever did would trust its clock."""
    texts = {file: file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py")}
    readers = {
        file.relative_to(PACKAGE).as_posix()
        for file, text in texts.items()
        if ".deadline" in text  # few files: parsing all takes seconds
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and node.attr == "deadline" and ast.unparse(node.value).endswith("context")
    }
    assert readers == {"resilience/deadline.py"}
