"""Which lines are about a run, until somebody writes them where the run's log can be read?"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from serve_app.observability.logs import JSON, subject_here

if TYPE_CHECKING:
    from serve_app.observability.logs import Lines, Screen, Subject

    Told = tuple[str, str, str]

logger = logging.getLogger(__name__)

MOST = 2_000
"""Lines that wait: of a process that runs a hundred turns, those of several seconds."""
SHOWN_CHARACTERS = 1_000
"""Of one field; of a traceback, its end."""


class Trail(logging.Handler):
    """Keeps what is told of runs; who tells never waits, and what finds no place is counted and dropped.

    It is masked and made a line when it is taken, together with others, and not between the steps of a turn.
    """

    def __init__(self, lines: Lines, screen: Screen) -> None:
        super().__init__(logging.DEBUG)
        self.dropped = 0
        self._lines = lines
        self._screen = screen
        self._waiting: deque[tuple[logging.LogRecord, Subject]] = deque()

    def emit(self, record: logging.LogRecord) -> None:
        subject = subject_here()
        own = getattr(record, "run_id", None)
        if not (dict(subject.ids).get("run_id") if own is None else own):
            return
        if len(self._waiting) >= MOST:
            self.dropped += 1
            return
        self._waiting.append((record, subject))

    def take(self) -> list[Told]:
        """What waits, each with its tenant and its run; it waits no longer. What cannot be told is counted."""
        taken = [self._waiting.popleft() for _ in range(len(self._waiting))]
        return [told for record, subject in taken if (told := self._line(record, subject))]

    def _line(self, record: logging.LogRecord, subject: Subject) -> Told | None:
        try:
            return self._told(record, subject)
        except Exception:
            self.dropped += 1
            logger.exception("log_record_unreadable", extra={"of": record.name})
            return None

    def _told(self, record: logging.LogRecord, subject: Subject) -> Told:
        self._screen.mask(record, subject)
        told = self._lines.told(record)
        tenant = told.pop("tenant", "default")
        line = JSON(told)
        if len(line) > SHOWN_CHARACTERS:
            line = JSON({name: _cut(name, value) for name, value in told.items()})
        return str(tenant), str(told["run_id"]), line


def _cut(name: str, value: Any) -> Any:
    if not isinstance(value, str | list | dict):
        return value
    text = value if isinstance(value, str) else JSON(value)
    if len(text) <= SHOWN_CHARACTERS:
        return value
    return f"…{text[-SHOWN_CHARACTERS:]}" if name == "exception" else f"{text[:SHOWN_CHARACTERS]}…"
