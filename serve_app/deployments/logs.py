"""Through which hands does everything go that this process logs or prints?

Ray Serve makes the handlers, one for the file of the replica and one for the terminal of `serve run`, and gives them to
its own logger only. Here ours and those of libraries get them too, all of them screened. The terminal is told warnings
only, unless the log level is DEBUG: what goes there is read, sent and printed by three more processes.
"""

from __future__ import annotations

import logging
import sys
from logging.handlers import MemoryHandler
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve._private.logging_utils import log_access_log_filter
from ray.serve.exceptions import RayServeException

from serve_app.observability.logs import (
    OURS,
    SERVE,
    ConsoleLogFormatter,
    JsonLogFormatter,
    RedactingFilter,
    current_log_context,
)
from serve_app.observability.redaction import Redactor
from serve_app.observability.run_log_handler import RunLogHandler

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from serve_app.config import ObservabilitySettings

RAY = "ray"


class Screened:
    """A stream whose lines are masked before they are written."""

    def __init__(self, stream: Any, redactor: Redactor) -> None:
        self._stream = stream
        self._redactor = redactor
        self._line = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._stream.write(f"{self._masked(line)}\n")
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self._line:
            rest, self._line = self._line, ""
            self._stream.write(self._masked(rest))
        self._stream.flush()

    def _masked(self, text: str) -> str:
        return self._redactor.redact(text, current_log_context().hidden)


def redact_logs(settings: ObservabilitySettings) -> RunLogHandler:
    """Screen the logs of this process, once and for all; what it tells of runs waits in the trail for who writes it."""
    logging._srcfile = None  # noqa: SLF001 - by the logging HOWTO: no line says where in the code it was told
    logging.logThreads = logging.logMultiprocessing = logging.logProcesses = False
    redactor = Redactor.from_patterns(settings.redact)
    process = _process()
    lines, readable, screen = JsonLogFormatter(process), ConsoleLogFormatter(process), RedactingFilter(redactor)
    serves, root, ours = logging.getLogger(SERVE), logging.getLogger(), logging.getLogger(OURS)
    for handler in serves.handlers:
        writing = handler.target if isinstance(handler, MemoryHandler) and handler.target else handler
        in_file = isinstance(writing, logging.FileHandler)
        writing.setFormatter(lines if in_file else readable)
        handler.setLevel(serves.level if in_file or serves.level < logging.INFO else max(serves.level, logging.WARNING))
    root.handlers = [*serves.handlers]
    unwanted = [log_access_log_filter] if all(_without_access_log(each) for each in serves.handlers) else []
    for each in (serves, logging.getLogger(RAY), *_handlers()):
        each.filters[:0] = [screen]  # before Serve's own, which would put its request id in the place of ours
    trail = RunLogHandler(lines, screen)
    root.addHandler(trail)
    serves.filters[:0] = unwanted  # a line of each call that no handler takes need not be masked
    ours.setLevel(logging.DEBUG if settings.steps else serves.level)
    sys.stdout, sys.stderr = Screened(sys.stdout, redactor), Screened(sys.stderr, redactor)
    return trail


def _without_access_log(handler: logging.Handler) -> bool:
    return log_access_log_filter in handler.filters


def _handlers() -> set[logging.Handler]:
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    return {handler for logger in loggers for handler in logger.handlers}


def _process() -> Mapping[str, str]:
    try:
        context = serve.get_replica_context()
    except RayServeException:  # outside of a replica, as in a test
        return {"deployment": "", "replica": ""}
    return {
        "application": context.app_name,
        "deployment": context.deployment,
        "replica": context.replica_id.unique_id,
    }
