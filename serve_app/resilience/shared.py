"""How is work done once for all who need it, though some of them give up?"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

from serve_app.resilience.ending import end

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Shared:
    """Work that is under way at most once; who stops waiting does not stop it, so that the next one finds it done."""

    def __init__(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None

    async def done(self) -> None:
        """Wait for the work that is under way, else for new work; its error is raised to all who wait."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), context=contextvars.Context())
        await asyncio.shield(self._task)

    async def close(self) -> None:
        """End what is under way."""
        if self._task is not None:
            await end(self._task)
