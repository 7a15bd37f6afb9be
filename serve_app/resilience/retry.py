"""How often is a call tried, and how long is the wait between two tries?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    retry_if_exception_type,
    wait_exponential,
    wait_fixed,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

WAIT_MIN_S, WAIT_MAX_S = 2, 5
OUTLAST_PAUSE_S = 0.1
INSIST_MIN_S, INSIST_MAX_S = 1, 30


async def retry(call: Callable[[], Awaitable[T]], attempts: int, left_s: float, on: tuple[type[Exception], ...]) -> T:
    """What `call` returns.

    Tried again on `on` only, after 2, 4, then 5 seconds, and never when that wait would end past `left_s`; then the
    last error is raised.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + left_s
    retrying = AsyncRetrying(
        stop=lambda state: state.attempt_number >= attempts or clock() + state.upcoming_sleep >= until,
        wait=wait_exponential(multiplier=WAIT_MIN_S, min=WAIT_MIN_S, max=WAIT_MAX_S),
        retry=retry_if_exception_type(on),
        reraise=True,
    )
    return await retrying(call)


async def insist(call: Callable[[], Awaitable[T]], report: Callable[[BaseException | None], None]) -> T:
    """What `call` returns, tried for ever: after 1, 2, 4 … seconds, at most half a minute, each failure reported."""
    retrying = AsyncRetrying(
        wait=wait_exponential(multiplier=INSIST_MIN_S, max=INSIST_MAX_S),
        retry=retry_if_exception_type(Exception),
        before_sleep=lambda state: report(state.outcome.exception()) if state.outcome else None,
    )
    return await retrying(call)


async def outlast(call: Callable[[], Awaitable[T]], patience_s: float, on: type[Exception]) -> T:
    """What `call` returns; tried again on `on` every tenth of a second for `patience_s`, then the last error is raised.

    An error of ours that is not `retryable` is raised at once.
    For what is away for a moment, and where the caller has nothing better to do than to wait for it.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + patience_s

    async def attempt() -> T:
        return await call()

    retrying = AsyncRetrying(
        stop=lambda _: clock() >= until,
        wait=wait_fixed(OUTLAST_PAUSE_S),
        retry=retry_if_exception(lambda error: isinstance(error, on) and getattr(error, "retryable", True)),
        reraise=True,
    )
    return await retrying(attempt)
