"""A breaker leaves a failing dependency alone, and returns to it by one call."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serve_app.errors import ModelUnavailable, Unavailable
from serve_app.resilience.circuit_breaker import BreakerPolicy, CircuitBreaker, GuardedCalls

if TYPE_CHECKING:
    from captured_logs import CapturedLogs

LIMIT = BreakerPolicy(failures=3, cool_down_s=10)


class Usage(RuleBasedStateMachine):
    """Calls that begin, end well, fail or are never heard of, in any order and at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = CircuitBreaker(LIMIT)
        self.open_calls: list[float] = []
        """When each was made."""
        self.last_probe = float("-inf")

    @rule(seconds=st.floats(0, 25))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.breaker.admits(self.now))
    @rule()
    def call_begins(self) -> None:
        if self.breaker.state(self.now) == "half_open":
            assert self.now >= self.last_probe + LIMIT.cool_down_s
            self.last_probe = self.now
        self.breaker = self.breaker.on_call(self.now)
        self.open_calls.append(self.now)

    @precondition(lambda self: self.open_calls)
    @rule()
    def call_succeeds(self) -> None:
        self.open_calls.pop()
        self.breaker = self.breaker.on_success()
        self.last_probe = float("-inf")
        assert self.breaker.state(self.now) == "closed"

    @precondition(lambda self: self.open_calls)
    @rule()
    def call_fails(self) -> None:
        self.open_calls.pop()
        before = self.breaker.state(self.now)
        self.breaker = self.breaker.on_failure(self.now)
        self.last_probe = float("-inf") if before != "open" else self.last_probe
        assert before == "closed" or self.breaker.state(self.now) == "open"

    @precondition(lambda self: self.open_calls)
    @rule()
    def call_never_ends(self) -> None:
        self.open_calls.pop()

    @precondition(lambda self: self.open_calls)
    @rule(which=st.integers(0, 5))
    def call_is_cancelled(self, which: int) -> None:
        begun_at = self.open_calls.pop(which % len(self.open_calls))
        before = self.breaker
        self.breaker = self.breaker.on_cancel(begun_at)
        assert self.breaker == before or before.probed_at == begun_at == self.last_probe
        self.last_probe = float("-inf") if self.breaker != before else self.last_probe

    @invariant()
    def it_is_open_only_after_failures_in_a_row(self) -> None:
        assert (self.breaker.state(self.now) == "closed") == (self.breaker.opened_at is None)
        assert self.breaker.opened_at is None or self.breaker.failures >= LIMIT.failures

    @invariant()
    def it_says_when_it_will_admit_a_call(self) -> None:
        wait_s = self.breaker.retry_after_s(self.now)
        assert self.breaker.admits(self.now) == (wait_s == 0)
        assert self.breaker.admits(self.now + wait_s + 1e-6)


TestUsage = Usage.TestCase


@given(st.lists(st.booleans()))
def test_it_opens_at_the_limit_of_failures_in_a_row_and_not_before(outcomes: list[bool]) -> None:
    breaker, row = CircuitBreaker(LIMIT), 0
    for good in outcomes:
        breaker = breaker.on_success() if good else breaker.on_failure(0)
        row = 0 if good else row + 1
        assert (breaker.state(0) == "open") == (row >= LIMIT.failures)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_circuit_refuses_while_it_is_open_and_comes_back_by_one_call() -> None:
    clock = Clock()
    circuit = GuardedCalls("the model", LIMIT, clock)
    for _ in range(3):
        with pytest.raises(ValueError, match="x"), circuit.guard(ModelUnavailable, (ValueError,)):
            raise ValueError("x")
    clock.now = 4
    with pytest.raises(ModelUnavailable) as refused, circuit.guard(ModelUnavailable, (ValueError,)):
        raise AssertionError("it was asked")
    assert refused.value.retry_after_s == 6
    clock.now = 10
    assert circuit.admits
    with circuit.guard(ModelUnavailable, (ValueError,)):
        assert not circuit.admits
    assert circuit.state == "closed"


def test_what_is_not_the_dependencys_failure_does_not_count() -> None:
    circuit = GuardedCalls("the model", LIMIT)
    for _ in range(5):
        with pytest.raises(KeyError), circuit.guard(ModelUnavailable, (ValueError,)):
            raise KeyError
    assert circuit.state == "closed"


def test_a_probe_that_ends_without_a_verdict_leaves_the_next_call_to_probe() -> None:
    clock = Clock()
    circuit = GuardedCalls("the model", BreakerPolicy(failures=1, cool_down_s=10), clock)
    with pytest.raises(ValueError, match="x"), circuit.guard(ModelUnavailable, (ValueError,)):
        raise ValueError("x")
    clock.now = 11
    with pytest.raises(KeyboardInterrupt), circuit.guard(ModelUnavailable, (ValueError,)):
        raise KeyboardInterrupt
    assert (circuit.state, circuit.admits) == ("half_open", True)


def test_a_call_that_began_before_the_breaker_opened_takes_no_probe_from_another() -> None:
    breaker = CircuitBreaker(BreakerPolicy(failures=1, cool_down_s=10)).on_call(0).on_failure(1).on_call(11)
    assert not breaker.on_cancel(0).admits(11)
    assert breaker.on_cancel(11).admits(11)


def test_a_breaker_tells_when_it_opens_and_when_it_closes(captured_logs: CapturedLogs) -> None:
    now = [0.0]
    circuit = GuardedCalls("tool", BreakerPolicy(failures=2, cool_down_s=10), lambda: now[0])
    for _ in range(3):
        with suppress(ValueError, Unavailable), circuit.guard(Unavailable, (ValueError,)):
            raise ValueError
    now[0] = 11
    with suppress(ValueError), circuit.guard(Unavailable, (ValueError,)):
        raise ValueError
    now[0] = 22
    for _ in range(2):
        with circuit.guard(Unavailable, (ValueError,)):
            pass
    assert [(line["event"], line["dependency"]) for line in captured_logs.lines] == [
        ("breaker_opened", "tool"),
        ("breaker_closed", "tool"),
    ]
