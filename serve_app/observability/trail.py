"""Which lines are about a run, until somebody writes them where the run's log can be read?"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from serve_app.observability.logs import JSON

if TYPE_CHECKING:
    from serve_app.observability.logs import Lines

    Told = tuple[str, str, str]

MOST = 2_000
"""Lines that wait: of a process that runs a hundred turns, those of several seconds."""
SHOWN_CHARACTERS = 1_000
"""Of one field; of a traceback, its end."""


class Trail(logging.Handler):
    """Keeps what is told of runs; who tells never waits, and what finds no place is counted and dropped."""

    def __init__(self, lines: Lines) -> None:
        super().__init__(logging.DEBUG)
        self.dropped = 0
        self._lines = lines
        self._waiting: deque[Told] = deque()

    def emit(self, record: logging.LogRecord) -> None:
        run_id = getattr(record, "run_id", None)
        if not run_id:
            return
        if len(self._waiting) >= MOST:
            self.dropped += 1
            return
        told = self._lines.told(record)
        tenant = told.pop("tenant", "default")
        line = JSON(told)
        if len(line) > SHOWN_CHARACTERS:
            line = JSON({name: _cut(name, value) for name, value in told.items()})
        self._waiting.append((tenant, run_id, line))

    def take(self) -> list[Told]:
        """What waits, each with its tenant and its run; it waits no longer."""
        return [self._waiting.popleft() for _ in range(len(self._waiting))]


def _cut(name: str, value: Any) -> Any:
    if not isinstance(value, str | list | dict):
        return value
    text = value if isinstance(value, str) else JSON(value)
    if len(text) <= SHOWN_CHARACTERS:
        return value
    return f"…{text[-SHOWN_CHARACTERS:]}" if name == "exception" else f"{text[:SHOWN_CHARACTERS]}…"
