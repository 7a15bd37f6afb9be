"""Is an allowance counted exactly, and is whoever is refused told when to come back?"""

from __future__ import annotations

from serve_app.resilience.fair_queue import Throughput
from serve_app.resilience.gcra import MAX_US, GcraLimit


def test_a_burst_is_a_whole_number_of_turns_whatever_the_rate():
    for per_minute in (0.1, 1, 7, 50, 59.9, 1000, 999_983):
        allowance = GcraLimit(per_minute, 50)
        assert allowance.tolerance_us == 50 * allowance.cost_us()


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


def test_whoever_is_refused_is_told_how_long_those_who_wait_take():
    pace = Throughput()
    for tenth in range(100):
        pace.record_end(tenth / 10)
    assert pace.per_second(9.9) == 10
    assert pace.retry_after_s(49, 9.9) == 5


def test_it_is_never_told_to_come_back_at_once_nor_after_more_than_a_minute():
    pace = Throughput()
    pace.record_end(0)
    pace.record_end(29)
    assert pace.retry_after_s(1000, 29) == 60
    for _ in range(200):
        pace.record_end(29)
    assert pace.retry_after_s(0, 29) == 1


def test_what_ended_long_ago_says_nothing_of_the_pace():
    pace = Throughput()
    for second in range(20):
        pace.record_end(second)
    assert pace.per_second(100) == 0
    assert pace.retry_after_s(10, 100) == 5
