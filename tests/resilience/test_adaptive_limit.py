"""The limit falls while event loops are busy, rises while they are not, and stays within its bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve_app.resilience.adaptive_limit import HIGH_BUSY, LOW_BUSY, AdaptiveLimit


def test_it_falls_by_a_tenth_of_what_is_in_use_down_to_the_floor() -> None:
    limit = AdaptiveLimit(1000)
    seen = [limit.update(1.0, in_use=200, floor=64, ceiling=1000) for _ in range(20)]
    assert seen[:3] == [180, 162, 145]
    assert seen[-1] == 64


def test_it_finds_a_thousand_places_within_half_a_minute() -> None:
    limit, seconds = AdaptiveLimit(64), 0
    while limit.update(0.0, in_use=64, floor=64, ceiling=1000) < 1000:
        seconds += 1
    assert seconds < 30


def test_it_begins_with_all_that_there_is() -> None:
    assert AdaptiveLimit().update(0.0, in_use=0, floor=64, ceiling=1200) == 1200


def test_between_the_two_marks_it_stays() -> None:
    limit = AdaptiveLimit(300)
    assert limit.update((HIGH_BUSY + LOW_BUSY) / 2, in_use=300, floor=64, ceiling=1000) == 300


def test_it_follows_the_ceiling_at_once_when_agents_go() -> None:
    limit = AdaptiveLimit(2000)
    assert limit.update(0.0, in_use=1500, floor=64, ceiling=1200) == 1200


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5000))),
    st.integers(1, 100),
    st.integers(0, 2000),
)
def test_it_stays_within_its_bounds_whatever_comes(seconds: list[tuple[float, int]], floor: int, more: int) -> None:
    limit = AdaptiveLimit()
    for busy, in_use in seconds:
        assert floor <= limit.update(busy, in_use, floor, floor + more) <= floor + more
