"""A logging handler that keeps the records of runs until they are written to Redis."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from serve_app.observability.logs import current_log_context, json_line

if TYPE_CHECKING:
    from serve_app.observability.logs import JsonLogFormatter, LogContext, RedactingFilter

    RunLine = tuple[str, str, str]
    """Tenant, run id and line."""

logger = logging.getLogger(__name__)

MAX_WAITING = 2_000
"""Records that wait: those of several seconds in a process that runs a hundred turns."""
MAX_CHARACTERS = 1_000
"""Of one field; of a traceback, its end."""


class RunLogHandler(logging.Handler):
    """Keeps the records of runs; a record that finds no place is counted.

    The caller that logs never waits: `drain` redacts and formats the records, not the steps of a turn.
    """

    def __init__(self, formatter: JsonLogFormatter, redacting: RedactingFilter) -> None:
        super().__init__(logging.DEBUG)
        self.dropped = 0
        self._json = formatter
        self._redacting = redacting
        self._waiting: deque[tuple[logging.LogRecord, LogContext]] = deque()

    def emit(self, record: logging.LogRecord) -> None:
        context = current_log_context()
        own = getattr(record, "run_id", None)
        if not (dict(context.ids).get("run_id") if own is None else own):
            return
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting.append((record, context))

    def drain(self) -> list[RunLine]:
        """Take all waiting records as lines; unreadable ones are counted as dropped."""
        taken = [self._waiting.popleft() for _ in range(len(self._waiting))]
        return [line for record, context in taken if (line := self._line_or_none(record, context))]

    def _line_or_none(self, record: logging.LogRecord, context: LogContext) -> RunLine | None:
        try:
            return self._line(record, context)
        except Exception:
            self.dropped += 1
            logger.exception("log_record_unreadable", extra={"of": record.name})
            return None

    def _line(self, record: logging.LogRecord, context: LogContext) -> RunLine:
        self._redacting.redact(record, context)
        fields = self._json.to_fields(record)
        tenant = fields.pop("tenant", "default")
        line = json_line(fields)
        if len(line) > MAX_CHARACTERS:
            line = json_line({name: _cut(name, value) for name, value in fields.items()})
        return str(tenant), str(fields["run_id"]), line


def _cut(name: str, value: Any) -> Any:
    if not isinstance(value, str | list | dict):
        return value
    text = value if isinstance(value, str) else json_line(value)
    if len(text) <= MAX_CHARACTERS:
        return value
    return f"…{text[-MAX_CHARACTERS:]}" if name == "exception" else f"{text[:MAX_CHARACTERS]}…"
