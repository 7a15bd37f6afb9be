"""A tool's code, kept from ending more than its own call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

CLEAN_UP_S = 1.0
"""How long a tool that is cancelled may take to end, before its call ends without it."""


class Crashed(Exception):
    """The tool ended as no call ends: it left the program, cancelled itself, or raised what is no `Exception`."""


class _Exit(Exception):
    """Carries what would end the event loop out of the task that raised it."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


async def contained(asking: Coroutine[Any, Any, T]) -> T:
    """Returns what `asking` returns, from a task of its own.

    A cancellation from outside cancels that task and is raised; a cancellation of the tool's own making is a crash.

    Raises:
        Crashed: it ended by anything but a value or an `Exception`.
    """
    task = asyncio.create_task(_exits_caught(asking))
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task}, timeout=CLEAN_UP_S)
        if task.done() and not task.cancelled():
            task.exception()  # taken note of: nobody else asks for it
        raise
    if task.cancelled():
        raise Crashed("CancelledError")
    error = task.exception()
    if error is None:
        return task.result()
    cause = error.cause if isinstance(error, _Exit) else error
    if isinstance(cause, Exception):
        raise cause
    raise Crashed(type(cause).__name__) from cause


async def _exits_caught(asking: Coroutine[Any, Any, T]) -> T:
    try:
        return await asking
    except (SystemExit, KeyboardInterrupt) as error:
        raise _Exit(error) from None
