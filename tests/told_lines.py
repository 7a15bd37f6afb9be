"""What would the files of the logs hold?"""

from __future__ import annotations

import json
import logging
from typing import Any

from serve_app.observability.logs import Lines, Readable, Screen
from serve_app.observability.redaction import Redactor

PROCESS = {"deployment": "Agent", "replica": "x1"}


class Told(logging.Handler):
    """Keeps the lines of this process, screened and formatted as a replica's are."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(Screen(Redactor()))
        self.lines: list[dict[str, Any]] = []
        self.readable: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(Lines(PROCESS).format(record)))
        self.readable.append(Readable(PROCESS).format(record))

    def of(self, event: str) -> list[dict[str, Any]]:
        """The lines that tell of this event."""
        return [line for line in self.lines if line.get("event") == event]
