"""Retries: the pauses between attempts, and the budget of one request."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type

from serve_app.resilience.deadline import remaining_s

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

T = TypeVar("T")

WAIT_MIN_S, WAIT_MAX_S = 2, 5
UNTIL_PAUSE_S = 0.1
FOREVER_MIN_S, FOREVER_MAX_S = 1, 30
MAX_DOUBLINGS = 32
"""Above any bound, and below what a float overflows at."""
POLL_MIN_S, POLL_MAX_S = 0.02, 0.25


def backoff_s(attempts: int, min_s: float, max_s: float) -> float:
    """Return the pause after so many failed attempts: `min_s`, doubled each time, at most `max_s`."""
    return min(min_s * 2.0 ** min(attempts - 1, MAX_DOUBLINGS), max_s)


async def retry(call: Callable[[], Awaitable[T]], attempts: int, left_s: float, on: tuple[type[Exception], ...]) -> T:
    """Call until it succeeds, at most `attempts` times; pause 2, 4, then 5 seconds.

    Only errors of the types `on` are retried. A retry whose pause would end after `left_s` is not made. The last error
    is raised. It is a loop, because tenacity costs 70 µs even where the first call succeeds.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + left_s
    for attempt in count(1):
        try:
            return await call()
        except on:
            pause_s = backoff_s(attempt, WAIT_MIN_S, WAIT_MAX_S)
            if attempt >= attempts or clock() + pause_s >= until:
                raise
        await asyncio.sleep(pause_s)
    raise AssertionError("unreachable")


def max_duration_s(timeout_s: float, retries: int) -> float:
    """Return the longest that `retry` takes with attempts of `timeout_s` each, pauses included."""
    return (1 + retries) * timeout_s + retries * WAIT_MAX_S


async def retry_after(
    call: Callable[[], Awaitable[T]], pauses_s: Iterable[float], on: tuple[type[Exception], ...]
) -> T:
    """Return what `call` returns; after an error in `on`, try again after each of `pauses_s`.

    The last error is raised.
    """
    for pause_s in pauses_s:
        try:
            return await call()
        except on:
            await asyncio.sleep(pause_s)
    return await call()


async def retry_forever(call: Callable[[], Awaitable[T]], report: Callable[[BaseException | None], None]) -> T:
    """Call until it succeeds, with pauses of 1 to 30 seconds; report each failure."""
    retrying = AsyncRetrying(
        wait=lambda state: backoff_s(state.attempt_number, FOREVER_MIN_S, FOREVER_MAX_S),
        retry=retry_if_exception_type(Exception),
        before_sleep=lambda state: report(state.outcome.exception()) if state.outcome else None,
    )
    return await retrying(call)


async def retry_until(call: Callable[[], Awaitable[T]], timeout_s: float, on: type[Exception]) -> T:
    """Call until it succeeds, every 0.1 s for `timeout_s`.

    Only errors of the type `on` are retried. After the time-out the last error is raised. An error of ours that is not
    `retryable` is raised at once. For a dependency that is away for a moment, where the caller can do nothing but wait.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + timeout_s
    while True:
        try:
            return await call()
        except on as error:
            if clock() >= until or not getattr(error, "retryable", True):
                raise
        await asyncio.sleep(UNTIL_PAUSE_S)


async def poll(attempt: Callable[[], Awaitable[T | None]], deadline: float) -> T | None:
    """Call `attempt` until it returns something true; None at the `deadline`.

    `deadline` is a Unix time; no call begins after it. The pauses grow from 20 to 250 ms. Errors of `attempt` are
    raised.
    """
    pause_s = POLL_MIN_S
    while not (found := await attempt()):
        if remaining_s(deadline) <= pause_s:
            return None
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, POLL_MAX_S)
    return found


class RetryAllowance:
    """The retries that the budget has `granted` to one call, and those that it `used`."""

    __slots__ = ("granted", "used")

    def __init__(self, granted: int) -> None:
        self.granted = granted
        self.used = 0


class RetryBudget:
    """The retries of one request, shared by all its calls."""

    def __init__(self, retries: int) -> None:
        self.left = retries

    def take(self) -> bool:
        """Use one retry; False where none is left."""
        if self.left < 1:
            return False
        self.left -= 1
        return True

    @contextmanager
    def reserve(self, wanted: int) -> Iterator[RetryAllowance]:
        """Reserve up to `wanted` retries for the block; unused ones go back."""
        allowance = RetryAllowance(max(0, min(wanted, self.left)))
        self.left -= allowance.granted
        try:
            yield allowance
        finally:
            self.left += allowance.granted - min(allowance.granted, max(0, allowance.used))
