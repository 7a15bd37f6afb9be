"""Log records: context, redaction, output formats, and a queue for the logs of runs.

The message of our own records is the name of an event, and its fields are in `extra`:

    logger.warning("run_adopted", extra={"after": 4})

Its ids (run, request, tenant) come from the `log_context` block around the call. The text of a library's record is a
sentence and is written as `message`. `RedactingFilter` masks every record before it is written or sent.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from serve_app.observability.redaction import leaf_texts
from serve_app.values.sanitize import sanitize_json, sanitize_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from serve_app.observability.redaction import Redactor

    RunLine = tuple[str, str, str]
    """Tenant, run id and line."""

logger = logging.getLogger(__name__)

OURS, SERVE = "serve_app", "ray.serve"
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_OF_RAY = {
    *("skip_context_filter", "log_to_stderr", "serve_access_log", "ray_serve_extra_fields", "_ray_timestamp_ns"),
    *("application", "deployment", "replica", "component_name", "component_id", "job_id", "worker_id", "node_id"),
    *("actor_id", "actor_name", "task_id", "task_name", "task_func_name"),
}
"""Fields that Ray and Serve add to a record; fewer and shorter ones name the process."""
_IDS = ("run_id", "tenant", "request_id", "session_id")
_REDACTED = "serve_app_redacted_fields"
"""The attribute of a redacted record that has its fields; no other code uses the name."""
_NOT_EXTRA = {*_STANDARD, *_OF_RAY, _REDACTED}
MAX_WAITING = 2_000
"""Records of runs that wait: those of several seconds in a process that runs a hundred turns."""
MAX_CHARACTERS = 1_000
"""Of one field of a run's record; of a traceback, its end."""


@dataclass(frozen=True, slots=True)
class LogContext:
    """The ids of every record of a block, and the values to mask in them."""

    ids: tuple[tuple[str, str], ...] = ()
    hidden: tuple[str, ...] = ()


_CONTEXT: ContextVar[LogContext | None] = ContextVar("serve_app.context", default=None)


@contextmanager
def log_context(ids: Mapping[str, str]) -> Iterator[None]:
    """Add these ids to every record of the block, beside outer ones."""
    before = current_log_context()
    token = _CONTEXT.set(replace(before, ids=tuple({**dict(before.ids), **ids}.items())))
    try:
        yield
    finally:
        _CONTEXT.reset(token)


@contextmanager
def hide_in_logs(values: Iterable[Any]) -> Iterator[None]:
    """Mask these values in every record of the block, also in a library's."""
    before = current_log_context()
    token = _CONTEXT.set(replace(before, hidden=(*before.hidden, *leaf_texts(values))))
    try:
        yield
    finally:
        _CONTEXT.reset(token)


def current_log_context() -> LogContext:
    """The context of a record that is made here."""
    return _CONTEXT.get() or LogContext()


class RedactingFilter(logging.Filter):
    """Redacts a record, its fields and its traceback, and adds the ids of its context."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        self.redact(record, current_log_context())
        return True

    def redact(self, record: logging.LogRecord, context: LogContext) -> None:
        """Redact the record, once, however often this is called.

        A record that cannot be redacted is replaced by `log_record_unreadable`; the caller that logged it never fails.
        """
        if hasattr(record, _REDACTED):
            return
        try:
            self._redact(record, context)
        except Exception as error:  # noqa: BLE001 - a value in a record may be anybody's
            self._replace(record, context, type(error).__name__)

    def _replace(self, record: logging.LogRecord, context: LogContext, reason: str) -> None:
        """Remove everything from a record but its ids, its text and the reason."""
        text = self._redactor.redact(record.msg, context.hidden) if isinstance(record.msg, str) else ""
        ids = {name: value for name in _IDS if isinstance(value := getattr(record, name, None), str)}
        fields = {**dict(context.ids), **ids, "of": record.name, "text": text, "error": reason}
        for name in _extra_fields(record):
            delattr(record, name)
        record.exc_info = record.exc_text = record.stack_info = None
        record.msg, record.args = "log_record_unreadable", None
        vars(record).update({**fields, _REDACTED: fields})

    def _redact(self, record: logging.LogRecord, context: LogContext) -> None:
        if not record.name.startswith(SERVE):
            vars(record)["skip_context_filter"] = True  # Serve's request ids are not those that our clients see
        hidden = context.hidden
        if record.exc_info and not record.exc_text:
            record.exc_text = _FORMATTER.formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self._redactor.redact(record.exc_text, hidden)
        if record.stack_info:
            record.stack_info = self._redactor.redact(record.stack_info, hidden)
        record.msg, record.args = self._redactor.redact(_message(record), hidden), None
        own = self._redactor.redact_value(_extra_fields(record), hidden)
        fields = {**_redact_ids(self._redactor, context.ids, hidden), **own}
        vars(record).update({**fields, _REDACTED: fields})


@lru_cache(1024)
def _redact_ids(redactor: Redactor, ids: tuple[tuple[str, str], ...], hidden: tuple[str, ...]) -> Mapping[str, Any]:
    """Cached: each record of a turn has the same ids."""
    redacted: Mapping[str, Any] = redactor.redact_value(dict(ids), hidden)
    return redacted


class JsonLogFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def __init__(self, process: Mapping[str, str]) -> None:
        super().__init__()
        self._process = dict(process)

    def format(self, record: logging.LogRecord) -> str:
        return json_line(self.to_fields(record))

    def to_fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """The record as a JSON object."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = {"ts": at, "level": record.levelname, **self._process, **_message_field(record), **fields_of(record)}
        return {**fields, "exception": record.exc_text} if record.exc_text else fields


class ConsoleLogFormatter(logging.Formatter):
    """Formats a record as a line for a person at a terminal."""

    def __init__(self, process: Mapping[str, str]) -> None:
        super().__init__()
        self._name = process.get("deployment", "")

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        fields = [f"{name}={_as_text(value)}" for name, value in fields_of(record).items()]
        line = " ".join([record.levelname, at, self._name, record.getMessage(), *fields])
        return sanitize_text(f"{line}\n{record.exc_text}" if record.exc_text else line)


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


_FORMATTER = logging.Formatter()
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


def json_line(value: Any) -> str:
    """The value as JSON on one line of valid UTF-8; never raises."""
    with suppress(Exception):  # a lone surrogate, a long number, or a key that is no text
        return orjson.dumps(value, default=str).decode()
    try:
        return sanitize_text(_encode(value))
    except Exception:  # noqa: BLE001 - a value in a record may be anybody's
        return _encode(sanitize_json(value))


def _message(record: logging.LogRecord) -> str:
    """The record's message; where its arguments do not fit, both side by side.

    A filter must not raise.
    """
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - an argument may be of anybody's class
        return f"{record.msg} {record.args!r}"


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The record's fields, redacted if the record is."""
    redacted: dict[str, Any] | None = getattr(record, _REDACTED, None)
    return _extra_fields(record) if redacted is None else redacted


def _extra_fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _NOT_EXTRA and value is not None}


def _message_field(record: logging.LogRecord) -> dict[str, str]:
    if record.name.partition(".")[0] == OURS:
        return {"event": record.getMessage()}
    return {"logger": record.name, "message": record.getMessage()}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json_line(value)


def _cut(name: str, value: Any) -> Any:
    if not isinstance(value, str | list | dict):
        return value
    text = value if isinstance(value, str) else json_line(value)
    if len(text) <= MAX_CHARACTERS:
        return value
    return f"…{text[-MAX_CHARACTERS:]}" if name == "exception" else f"{text[:MAX_CHARACTERS]}…"
