"""Tools that harm the process in which they run."""

import asyncio
import os
import time

BLOCKED_S = 8


async def crash() -> str:
    """Crash."""
    os._exit(1)


async def devour() -> str:
    """Take up memory without end."""
    taken: list[bytes] = []
    while True:
        taken.append(b"x" * 4_000_000)
        await asyncio.sleep(0)


async def block() -> str:
    """Keep the process from doing anything else."""
    time.sleep(BLOCKED_S)  # noqa: ASYNC251 - that is what it is for
    return "at last"


async def hang() -> str:
    """Wait for ever."""
    await asyncio.Event().wait()
    return "never"


async def pulse() -> str:
    """Say that the process is there."""
    return "here"
