"""The log lines of a process, redacted and formatted as a replica writes them."""

from __future__ import annotations

import json
import logging
from typing import Any

from serve_app.observability.logs import ConsoleLogFormatter, JsonLogFormatter, RedactingFilter
from serve_app.observability.redaction import Redactor

PROCESS = {"deployment": "Agent", "replica": "x1"}


class CapturedLogs(logging.Handler):
    """Keeps the lines of this process, screened and formatted as a replica's are."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(RedactingFilter(Redactor()))
        self.lines: list[dict[str, Any]] = []
        self.readable: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(JsonLogFormatter(PROCESS).format(record)))
        self.readable.append(ConsoleLogFormatter(PROCESS).format(record))

    def of(self, event: str) -> list[dict[str, Any]]:
        """The lines that tell of this event."""
        return [line for line in self.lines if line.get("event") == event]
