"""A rate limit is counted exactly, by each key."""

from __future__ import annotations

from serve_app.resilience.gcra import MAX_US, GcraLimit, LocalRateLimiter


def test_a_burst_is_a_whole_number_of_turns_whatever_the_rate():
    for per_minute in (0.1, 1, 7, 50, 59.9, 1000, 999_983):
        limit = GcraLimit(per_minute, 50)
        assert limit.tolerance_us == 50 * limit.cost_us()


def test_without_a_burst_it_is_a_minutes_worth_and_one_at_least():
    assert GcraLimit(50).burst_units == 50
    assert GcraLimit(0.5).burst_units == 1


def test_many_tokens_are_charged_together_though_one_costs_less_than_a_microsecond():
    million_a_second = GcraLimit(60_000_000_000)
    assert million_a_second.cost_us(1_000_000) == 1000
    assert million_a_second.tolerance_of_sum_us == 60_000_000


def test_no_limit_is_so_small_that_sums_become_inexact():
    assert GcraLimit(1e-300).cost_us(10**9) == MAX_US
    assert 2 * MAX_US + 4 * 10**15 < 2**53


def test_each_key_of_a_local_limiter_has_its_burst_and_then_its_rate() -> None:
    now = 0.0
    limiter = LocalRateLimiter(GcraLimit(per_minute=6, burst=2), 10, lambda: now)
    assert [limiter.take("a") for _ in range(3)] == [0, 0, 10]
    assert limiter.take("b") == 0
    now = 4.0
    assert limiter.take("a") == 6
    now = 10.0
    assert [limiter.take("a") for _ in range(2)] == [0, 10]
    now = 1000.0
    assert [limiter.take("a") for _ in range(3)] == [0, 0, 10]


def test_a_local_limiter_forgets_the_keys_that_were_used_longest_ago() -> None:
    limiter = LocalRateLimiter(GcraLimit(per_minute=1, burst=1), 2, lambda: 0.0)
    assert [limiter.take(key) for key in ("a", "b", "a", "c", "b", "a")] == [0, 0, 60, 0, 60, 0]
