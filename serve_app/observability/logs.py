"""What does a log line say, in which words, and what of it is masked?

The text of our own records is the name of an event, and what belongs to it is in `extra`:

    logger.warning("run_taken_over", extra={"after": 4})

Its ids (run, request, tenant) come from the `log_context` block around the call. The text of a library's record is a
sentence and is written as `message`. `RedactingFilter` masks every record before it is written or sent.
"""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from serve_app.observability.redaction import leaf_texts
from serve_app.values.sanitize import sanitize_json, sanitize_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from serve_app.observability.redaction import Redactor

OURS, SERVE = "serve_app", "ray.serve"
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_OF_RAY = {
    *("skip_context_filter", "log_to_stderr", "serve_access_log", "ray_serve_extra_fields", "_ray_timestamp_ns"),
    *("application", "deployment", "replica", "component_name", "component_id", "job_id", "worker_id", "node_id"),
    *("actor_id", "actor_name", "task_id", "task_name", "task_func_name"),
}
"""What Ray and Serve add to a record: the process is told by fewer and shorter names."""
_IDS = ("run_id", "tenant", "request_id", "session_id")
_NO_FIELD = {*_STANDARD, *_OF_RAY, "screened"}


@dataclass(frozen=True, slots=True)
class LogContext:
    """What the lines of a block are about, and what none of them may hold."""

    ids: tuple[tuple[str, str], ...] = ()
    hidden: tuple[str, ...] = ()


_SUBJECT: ContextVar[LogContext | None] = ContextVar("serve_app.subject", default=None)


@contextmanager
def log_context(ids: Mapping[str, str]) -> Iterator[None]:
    """Every line of the block has these ids, beside those of the blocks around it."""
    before = current_log_context()
    token = _SUBJECT.set(replace(before, ids=tuple({**dict(before.ids), **ids}.items())))
    try:
        yield
    finally:
        _SUBJECT.reset(token)


@contextmanager
def hide_in_logs(values: Iterable[Any]) -> Iterator[None]:
    """No line of the block holds one of these values, wherever a library may have put it."""
    before = current_log_context()
    token = _SUBJECT.set(replace(before, hidden=(*before.hidden, *leaf_texts(values))))
    try:
        yield
    finally:
        _SUBJECT.reset(token)


def current_log_context() -> LogContext:
    """What a line is about that is told now."""
    return _SUBJECT.get() or LogContext()


class RedactingFilter(logging.Filter):
    """Masks a record, its fields and its traceback, and adds the ids of what it is about."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        self.mask(record, current_log_context())
        return True

    def mask(self, record: logging.LogRecord, subject: LogContext) -> None:
        """Mask a record that is about this; once, however often it is asked.

        Of one that cannot be masked no more is told than that: whoever told it must not fail with it.
        """
        if hasattr(record, "screened"):
            return
        try:
            self._mask(record, subject)
        except Exception as error:  # noqa: BLE001 - a value in a record may be anybody's
            self._give_up(record, subject, type(error).__name__)

    def _give_up(self, record: logging.LogRecord, subject: LogContext, why: str) -> None:
        """Leave nothing of a record but its ids, its text and why it cannot be masked."""
        text = self._redactor.redact(record.msg, subject.hidden) if isinstance(record.msg, str) else ""
        ids = {name: said for name in _IDS if isinstance(said := getattr(record, name, None), str)}
        fields = {**dict(subject.ids), **ids, "of": record.name, "text": text, "error": why}
        for name in _given(record):
            delattr(record, name)
        record.exc_info = record.exc_text = record.stack_info = None
        record.msg, record.args = "log_record_unreadable", None
        vars(record).update(fields, screened=fields)

    def _mask(self, record: logging.LogRecord, subject: LogContext) -> None:
        if not record.name.startswith(SERVE):
            vars(record)["skip_context_filter"] = True  # Serve's request ids are not those that our clients see
        hidden = subject.hidden
        if record.exc_info and not record.exc_text:
            record.exc_text = _FORMATTER.formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self._redactor.redact(record.exc_text, hidden)
        if record.stack_info:
            record.stack_info = self._redactor.redact(record.stack_info, hidden)
        record.msg, record.args = self._redactor.redact(_message(record), hidden), None
        said = self._redactor.redact_value(_given(record), hidden)
        fields = {**_masked_ids(self._redactor, subject.ids, hidden), **said}
        vars(record).update(fields, screened=fields)


@lru_cache(1024)
def _masked_ids(redactor: Redactor, ids: tuple[tuple[str, str], ...], hidden: tuple[str, ...]) -> Mapping[str, Any]:
    """A turn's ids stand in each of its lines."""
    masked: Mapping[str, Any] = redactor.redact_value(dict(ids), hidden)
    return masked


class JsonLogFormatter(logging.Formatter):
    """One JSON object a line, for programs."""

    def __init__(self, process: Mapping[str, str]) -> None:
        super().__init__()
        self._process = dict(process)

    def format(self, record: logging.LogRecord) -> str:
        return json_line(self.told(record))

    def told(self, record: logging.LogRecord) -> dict[str, Any]:
        """The record as an object."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told = {"ts": at, "level": record.levelname, **self._process, **_said(record), **fields_of(record)}
        return {**told, "exception": record.exc_text} if record.exc_text else told


class ConsoleLogFormatter(logging.Formatter):
    """The same for a person at a terminal."""

    def __init__(self, process: Mapping[str, str]) -> None:
        super().__init__()
        self._name = process.get("deployment", "")

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        fields = [f"{name}={_short(value)}" for name, value in fields_of(record).items()]
        line = " ".join([record.levelname, at, self._name, record.getMessage(), *fields])
        return sanitize_text(f"{line}\n{record.exc_text}" if record.exc_text else line)


_FORMATTER = logging.Formatter()
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


def json_line(value: Any) -> str:
    """The value on one line of valid text, whatever it is."""
    try:
        return sanitize_text(_encode(value))
    except Exception:  # noqa: BLE001 - a value in a record may be anybody's
        return _encode(sanitize_json(value))


def _message(record: logging.LogRecord) -> str:
    """The text; of a record whose arguments do not fit, what there is: a filter must not raise."""
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - an argument may be of anybody's class
        return f"{record.msg} {record.args!r}"


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What the record says beside its text: as it was masked, where it was."""
    screened: dict[str, Any] | None = getattr(record, "screened", None)
    return _given(record) if screened is None else screened


def _given(record: logging.LogRecord) -> dict[str, Any]:
    """What was given in `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _NO_FIELD and value is not None}


def _said(record: logging.LogRecord) -> dict[str, str]:
    if record.name.partition(".")[0] == OURS:
        return {"event": record.getMessage()}
    return {"logger": record.name, "message": record.getMessage()}


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json_line(value)
