"""Redacts everything that a replica logs or prints.

Ray Serve makes two handlers, for the replica's log file and for the terminal of `serve run`, and gives them to its own
logger only. Here our loggers and those of libraries use them too, redacted. The terminal gets warnings only, unless the
log level is DEBUG: what goes there is read, sent and printed by three more processes.
"""

from __future__ import annotations

import logging
import sys
from logging.handlers import MemoryHandler
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.exceptions import RayServeException

from serve_app.deployments.ray_adapter import DROP_ACCESS_LOG
from serve_app.observability.logs import (
    OURS,
    SERVE,
    ConsoleLogFormatter,
    JsonLogFormatter,
    RedactingFilter,
    RunLogHandler,
    current_log_context,
)
from serve_app.observability.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from serve_app.config import ObservabilitySettings

RAY = "ray"


class RedactedStream:
    """A text stream that redacts each line before it is written."""

    def __init__(self, stream: Any, redactor: Redactor) -> None:
        self._stream = stream
        self._redactor = redactor
        self._line = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._stream.write(f"{self._redact(line)}\n")
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self._line:
            rest, self._line = self._line, ""
            self._stream.write(self._redact(rest))
        self._stream.flush()

    def _redact(self, text: str) -> str:
        return self._redactor.redact(text, current_log_context().hidden)


def redact_logs(settings: ObservabilitySettings) -> RunLogHandler:
    """Redact the logs of this process; returns the handler with the runs' records.

    Call it once in a process.
    """
    logging._srcfile = None  # noqa: SLF001 - logging HOWTO: no record looks up its place in the code
    logging.logThreads = logging.logMultiprocessing = logging.logProcesses = False
    redactor = Redactor.from_patterns(settings.redact)
    process = _replica_fields()
    json_lines, console, redacting = JsonLogFormatter(process), ConsoleLogFormatter(process), RedactingFilter(redactor)
    serve_logger, root, our_logger = logging.getLogger(SERVE), logging.getLogger(), logging.getLogger(OURS)
    for handler in serve_logger.handlers:
        writer = handler.target if isinstance(handler, MemoryHandler) and handler.target else handler
        in_file = isinstance(writer, logging.FileHandler)
        writer.setFormatter(json_lines if in_file else console)
        handler.setLevel(
            serve_logger.level
            if in_file or serve_logger.level < logging.INFO
            else max(serve_logger.level, logging.WARNING)
        )
    root.handlers = [*serve_logger.handlers]
    drops_access_log = all(DROP_ACCESS_LOG in each.filters for each in serve_logger.handlers)
    for each in (serve_logger, logging.getLogger(RAY), *_all_handlers()):
        each.filters[:0] = [redacting]  # before Serve's own filter, which replaces our request id
    run_logs = RunLogHandler(json_lines, redacting)
    root.addHandler(run_logs)
    if drops_access_log:  # before the redaction, which a record that no handler takes does not need
        serve_logger.filters[:0] = [DROP_ACCESS_LOG]
    our_logger.setLevel(logging.DEBUG if settings.steps else serve_logger.level)
    sys.stdout, sys.stderr = RedactedStream(sys.stdout, redactor), RedactedStream(sys.stderr, redactor)
    return run_logs


def _all_handlers() -> set[logging.Handler]:
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    return {handler for logger in loggers for handler in logger.handlers}


def _replica_fields() -> Mapping[str, str]:
    try:
        context = serve.get_replica_context()
    except RayServeException:  # outside of a replica, as in a test
        return {"deployment": "", "replica": ""}
    return {
        "application": context.app_name,
        "deployment": context.deployment,
        "replica": context.replica_id.unique_id,
    }
