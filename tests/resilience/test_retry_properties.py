"""The pauses between attempts keep their bounds, whatever fails how often, in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import looptime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.resilience.retry import (
    FOREVER_MAX_S,
    FOREVER_MIN_S,
    UNTIL_PAUSE_S,
    WAIT_MAX_S,
    WAIT_MIN_S,
    retry,
    retry_forever,
    retry_until,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

tries = st.lists(st.tuples(st.floats(0, 10), st.sampled_from([TimeoutError, ConnectionError, ValueError])), max_size=8)
"""How long each takes, and what it fails with; one more succeeds."""
TRANSIENT = (TimeoutError, ConnectionError)


class Flaky:
    """Fails as told, then succeeds; remembers when each try began and ended."""

    def __init__(self, tries: list[tuple[float, type[Exception]]]) -> None:
        self.left = list(tries)
        self.spans: list[tuple[float, float]] = []

    async def __call__(self) -> str:
        clock = asyncio.get_running_loop().time
        begun = clock()
        took_s, error = self.left.pop(0) if self.left else (0.0, None)
        await asyncio.sleep(took_s)
        self.spans.append((begun, clock()))
        if error:
            raise error
        return "done"

    @property
    def waits_s(self) -> list[float]:
        return [later[0] - earlier[1] for earlier, later in zip(self.spans, self.spans[1:], strict=False)]


def _in_virtual_time(coroutine: Coroutine[None, None, T]) -> T:
    loop = looptime.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


async def _outcome(coroutine: Coroutine[None, None, str]) -> str | type[Exception]:
    try:
        return await coroutine
    except Exception as error:  # noqa: BLE001 - the test looks at it
        return type(error)


@settings(deadline=None)
@given(tries, st.integers(1, 6), st.floats(0, 60))
def test_a_retry_keeps_its_attempts_its_waits_and_the_deadline(
    failures: list[tuple[float, type[Exception]]], attempts: int, left_s: float
) -> None:
    call = Flaky(failures)
    outcome = _in_virtual_time(_outcome(retry(call, attempts, left_s, TRANSIENT)))
    made = len(call.spans)
    assert 1 <= made <= attempts
    assert all(WAIT_MIN_S - 1e-3 <= wait_s <= WAIT_MAX_S + 1e-3 for wait_s in call.waits_s)
    assert call.waits_s == sorted(call.waits_s, key=lambda wait_s: round(wait_s, 3))
    assert all(begun < left_s for begun, _ in call.spans[1:]), "no try begins past the deadline"
    errors = [error for _, error in failures[:made]]
    assert all(issubclass(error, TRANSIENT) for error in errors[: made - 1])
    assert outcome == (errors[-1] if len(errors) == made else "done")


@settings(deadline=None)
@given(st.integers(1, 6), st.floats(0, 60))
def test_a_retry_gives_up_no_sooner_than_it_must(attempts: int, left_s: float) -> None:
    call = Flaky([(0, TimeoutError)] * 8)
    assert _in_virtual_time(_outcome(retry(call, attempts, left_s, TRANSIENT))) is TimeoutError
    next_wait_s = min(WAIT_MIN_S * 2 ** (len(call.spans) - 1), WAIT_MAX_S)
    assert len(call.spans) == attempts or call.spans[-1][1] + next_wait_s >= left_s - 1e-3


@settings(deadline=None)
@given(st.integers(0, 12))
def test_what_is_insisted_on_waits_longer_and_longer_up_to_its_most(failures: int) -> None:
    call, errors = Flaky([(0, ValueError)] * failures), list[BaseException | None]()
    assert _in_virtual_time(retry_forever(call, errors.append)) == "done"
    assert len(errors) == failures
    expected = [min(FOREVER_MIN_S * 2.0**made, FOREVER_MAX_S) for made in range(failures)]
    assert call.waits_s == pytest.approx(expected, abs=1e-3)


@settings(deadline=None)
@given(tries, st.floats(0, 3))
def test_what_is_outlasted_is_tried_at_least_once_and_not_after_its_time(
    failures: list[tuple[float, type[Exception]]], timeout_s: float
) -> None:
    call = Flaky(failures)
    outcome = _in_virtual_time(_outcome(retry_until(call, timeout_s, ConnectionError)))
    assert call.waits_s == pytest.approx([UNTIL_PAUSE_S] * len(call.waits_s), abs=1e-3)
    assert all(ended < timeout_s for _, ended in call.spans[:-1])
    assert outcome == (failures[len(call.spans) - 1][1] if len(call.spans) <= len(failures) else "done")
