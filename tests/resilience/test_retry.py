"""A call is tried as often, and as far apart, as it should be, in virtual time."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from serve_app.resilience.retry import poll, retry, retry_forever

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


class Flaky:
    """Fails with the given errors in turn, then succeeds; remembers when it was called."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.at: list[float] = []

    async def __call__(self) -> str:
        self.at.append(asyncio.get_running_loop().time())
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def test_a_second_attempt_comes_two_seconds_after_the_first() -> None:
    call = Flaky(TimeoutError())
    assert await retry(call, 2, 60, (TimeoutError,)) == "done"
    assert call.at == [0, 2]


async def test_waits_grow_to_five_seconds_and_no_further() -> None:
    call = Flaky(*[ConnectionError()] * 4)
    assert await retry(call, 5, 60, (ConnectionError,)) == "done"
    assert call.at == [0, 2, 6, 11, 16]


async def test_the_last_error_is_raised_when_all_attempts_failed() -> None:
    call = Flaky(TimeoutError(), ConnectionError("last"))
    with pytest.raises(ConnectionError, match="last"):
        await retry(call, 2, 60, (TimeoutError, ConnectionError))
    assert len(call.at) == 2


async def test_an_error_that_is_not_transient_is_not_tried_again() -> None:
    call = Flaky(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await retry(call, 5, 60, (TimeoutError,))
    assert call.at == [0]


async def test_no_wait_is_begun_that_would_end_past_the_deadline() -> None:
    call = Flaky(TimeoutError())
    with pytest.raises(TimeoutError):
        await retry(call, 2, 1.5, (TimeoutError,))
    assert call.at == [0]


async def test_what_is_insisted_on_is_tried_until_it_comes_and_each_failure_is_told() -> None:
    failures = [ValueError(str(number)) for number in range(8)]
    flaky, errors = Flaky(*failures), []
    assert await retry_forever(flaky, errors.append) == "done"
    waits = [later - earlier for earlier, later in zip(flaky.at, flaky.at[1:], strict=False)]
    assert waits == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30])
    assert errors == failures


async def test_polling_ends_with_the_first_true_reply_and_its_pauses_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = asyncio.get_running_loop().time
    monkeypatch.setattr("serve_app.resilience.deadline.time.time", clock)
    for replies, found, calls in ((20, "yes", 20), (1000, None, 37)):
        begun, at = clock(), list[float]()

        async def attempt(begun: float = begun, at: list[float] = at, replies: int = replies) -> str | None:
            at.append(clock() - begun)
            return "yes" if len(at) == replies else None

        assert await poll(attempt, begun + 8) == found, replies
        pauses = [later - earlier for earlier, later in pairwise(at)]
        assert pauses[:3] == pytest.approx([0.02, 0.03, 0.045]), replies
        assert max(pauses) == pytest.approx(0.25), replies
        assert (len(at), at[-1] <= 8) == (calls, True), replies


async def test_polling_asks_once_though_no_time_is_left_and_raises_what_fails() -> None:
    async def fail() -> None:
        raise ValueError("no")

    assert await poll(lambda: asyncio.sleep(0, 0), 0) is None
    assert await poll(lambda: asyncio.sleep(0, "yes"), 0) == "yes"
    with pytest.raises(ValueError, match="no"):
        await poll(fail, 0)
