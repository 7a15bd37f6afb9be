"""How is the API served while a command, which waits, is its client?"""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from http_service import Service, running

from serve_app.config import HttpSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from http_fakes import ScriptedAgent


@contextmanager
def served(agent: ScriptedAgent, **parts: Any) -> Iterator[str]:
    """The URL of the API over `agent`, in a thread of its own."""
    service = Service(turn_timeout_s=60, settings=HttpSettings(), runs=agent.runs, **parts)
    service.agent = agent
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with running(service):
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    assert ready.wait(10)
    yield f"http://127.0.0.1:{service.port}"
    stop.set()
    thread.join(10)
