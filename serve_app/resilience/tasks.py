"""Cancellation of tasks, and work that many callers share."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

CANCEL_EVERY_S = 0.1


async def cancel_and_wait(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks and wait until all have ended.

    One cancellation is not enough: before Python 3.12 `asyncio.wait_for`, through which redis-py sends, loses a
    cancellation that arrives while it returns.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_EVERY_S)


class SingleFlight:
    """Work that runs at most once at a time, for all its callers.

    A caller that stops waiting does not stop the work, so that the next caller finds it done.
    """

    def __init__(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Wait for the work in progress, or start it; all callers get its error."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), context=contextvars.Context())
        await asyncio.shield(self._task)

    async def close(self) -> None:
        """Cancel the work in progress."""
        if self._task is not None:
            await cancel_and_wait(self._task)
