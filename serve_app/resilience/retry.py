"""How often is a call tried, and how long is the wait between two tries?"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

WAIT_MIN_S, WAIT_MAX_S = 2, 5


async def retry(call: Callable[[], Awaitable[T]], attempts: int, left_s: float, on: tuple[type[Exception], ...]) -> T:
    """What `call` returns.

    Tried again on `on` only, after 2, 4, then 5 seconds, and never when that wait would end past `left_s`; then the
    last error is raised.
    """
    retrying = AsyncRetrying(
        stop=stop_after_attempt(attempts) | stop_before_delay(left_s),
        wait=wait_exponential(multiplier=WAIT_MIN_S, min=WAIT_MIN_S, max=WAIT_MAX_S),
        retry=retry_if_exception_type(on),
        reraise=True,
    )
    return await retrying(call)
