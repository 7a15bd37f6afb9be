"""Serves the API in a thread while a command, which waits, is its client."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from http_fakes import ScriptedAgent
from http_service import Service, empty, in_thread

from serve_app.config import HttpSettings

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def served(redis_url: str, agent: ScriptedAgent | None = None, **options: Any) -> Iterator[str]:
    """The URL of the API over `agent` and an empty Redis, in a thread of its own."""
    agent = agent or ScriptedAgent()
    service = Service(empty(redis_url), turn_timeout_s=60, settings=HttpSettings(), agent=agent, **options)
    with in_thread(service) as url:
        yield url
