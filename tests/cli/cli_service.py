"""How is the API served while a command, which waits, is its client?"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from http_service import Service, in_thread

from serve_app.config import HttpSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from http_fakes import ScriptedAgent


@contextmanager
def served(agent: ScriptedAgent, **parts: Any) -> Iterator[str]:
    """The URL of the API over `agent`, in a thread of its own."""
    service = Service(turn_timeout_s=60, settings=HttpSettings(), runs=agent.runs, **parts)
    service.agent = agent
    with in_thread(service) as url:
        yield url
