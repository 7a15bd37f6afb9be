"""Which lines are about a run, until somebody writes them where the run's log can be read?"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from serve_app.observability.logs import current_log_context, json_line

if TYPE_CHECKING:
    from serve_app.observability.logs import JsonLogFormatter, LogContext, RedactingFilter

    Told = tuple[str, str, str]

logger = logging.getLogger(__name__)

MAX_WAITING = 2_000
"""Lines that wait: of a process that runs a hundred turns, those of several seconds."""
MAX_CHARACTERS = 1_000
"""Of one field; of a traceback, its end."""


class RunLogHandler(logging.Handler):
    """Keeps what is told of runs; who tells never waits, and what finds no place is counted and dropped.

    It is masked and made a line when it is taken, together with others, and not between the steps of a turn.
    """

    def __init__(self, lines: JsonLogFormatter, screen: RedactingFilter) -> None:
        super().__init__(logging.DEBUG)
        self.dropped = 0
        self._lines = lines
        self._screen = screen
        self._waiting: deque[tuple[logging.LogRecord, LogContext]] = deque()

    def emit(self, record: logging.LogRecord) -> None:
        subject = current_log_context()
        own = getattr(record, "run_id", None)
        if not (dict(subject.ids).get("run_id") if own is None else own):
            return
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting.append((record, subject))

    def drain(self) -> list[Told]:
        """What waits, each with its tenant and its run; it waits no longer. What cannot be told is counted."""
        taken = [self._waiting.popleft() for _ in range(len(self._waiting))]
        return [told for record, subject in taken if (told := self._line(record, subject))]

    def _line(self, record: logging.LogRecord, subject: LogContext) -> Told | None:
        try:
            return self._told(record, subject)
        except Exception:
            self.dropped += 1
            logger.exception("log_record_unreadable", extra={"of": record.name})
            return None

    def _told(self, record: logging.LogRecord, subject: LogContext) -> Told:
        self._screen.mask(record, subject)
        told = self._lines.told(record)
        tenant = told.pop("tenant", "default")
        line = json_line(told)
        if len(line) > MAX_CHARACTERS:
            line = json_line({name: _cut(name, value) for name, value in told.items()})
        return str(tenant), str(told["run_id"]), line


def _cut(name: str, value: Any) -> Any:
    if not isinstance(value, str | list | dict):
        return value
    text = value if isinstance(value, str) else json_line(value)
    if len(text) <= MAX_CHARACTERS:
        return value
    return f"…{text[-MAX_CHARACTERS:]}" if name == "exception" else f"{text[:MAX_CHARACTERS]}…"
