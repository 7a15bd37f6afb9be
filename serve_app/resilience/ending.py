"""How does a task end for sure?"""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN_S = 0.1


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks until all have ended.

    Once is not enough: before Python 3.12 `asyncio.wait_for`, through which redis-py sends, loses a cancellation that
    comes as it returns.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_S)
