"""Redacts recorded turns and sends them to a trace collector, in a thread.

Nothing waits for the queue. Where a collector is slow or away the queue fills, and a trace that does not fit is dropped
as a whole and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from serve_app.observability.redaction import leaf_texts
from serve_app.values.sanitize import sanitize_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from serve_app.observability.redaction import Redactor
    from serve_app.observability.spans import RecordedSpan, TurnRecording
    from serve_app.ports import AttributeValue, SpanContent, SpanKind

    Redact = Callable[[Any], Any]

logger = logging.getLogger(__name__)

MAX_SPANS = 2_000
"""Spans that wait for a collector: those of a hundred turns or two."""
BATCH = 20
"""Traces in one request."""
LINGER_S = 0.5
"""How long the first trace of a batch waits for others: one request costs as much as the export of several turns."""
UNWRITABLE = (TypeError, ValueError, LookupError, AttributeError, RecursionError)
"""Errors of a trace that cannot be encoded; any other error is the collector's."""
MAX_TEXT_CHARACTERS = 32_000
"""Of one text: the longest message of a user."""
ELLIPSIS = " …"
MAX_INTEGER_BITS = 63
"""A longer integer does not fit into OTLP, nor into LangSmith's JSON."""


@dataclass(frozen=True, slots=True)
class SpanData:
    """A redacted span, ready to be sent; its times are Unix time in nanoseconds."""

    span_id: str
    parent_id: str
    """Empty for the root of a trace that began here."""
    kind: SpanKind
    name: str
    begun_ns: int
    ended_ns: int
    inputs: Any
    outputs: Any
    error: str
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class TraceData:
    """A redacted turn, ready to be sent; the root span is first."""

    trace_id: str
    run_id: str
    session_id: str
    spans: tuple[SpanData, ...]


if TYPE_CHECKING:
    Send = Callable[[Sequence[TraceData]], None]


class TraceExporter:
    """The queue and the thread of one collector."""

    def __init__(
        self,
        sink: str,
        connect: Callable[[], Send],
        redactor: Redactor,
        count_dropped: Callable[[str, int], None],
        max_spans: int = MAX_SPANS,
    ) -> None:
        """Start the thread.

        `connect` makes the client, in the thread: its import takes longer than a turn. The function that it returns
        raises where it could not send. `count_dropped` takes the sink and a number of spans, in any thread.
        """
        self._sink = sink
        self._connect = connect
        self._redactor = redactor
        self._count_dropped = count_dropped
        self._max_spans = max_spans
        self._queue: deque[TurnRecording] = deque()
        self._held_spans = 0
        """Spans in the queue and in the request under way."""
        self._closing = False
        self._healthy = True
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"traces to {sink}", daemon=True)
        self._thread.start()

    def enqueue(self, recording: TurnRecording) -> None:
        """Queue the trace, or drop it where the queue is full or closed."""
        count = len(recording.spans)
        with self._changed:
            fits = self._held_spans + count <= self._max_spans and not self._closing
            if fits:
                self._queue.append(recording)
                self._held_spans += count
                self._changed.notify()
        if not fits:
            self._count_dropped(self._sink, count)

    def close(self) -> None:
        """Take no more traces; the queue is still sent."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def join(self, until: float) -> None:
        """Wait for the queue until the monotonic time `until`, then drop the rest."""
        self._thread.join(max(0.0, until - time.monotonic()))
        with self._changed:
            left, self._held_spans = self._held_spans, 0
            self._queue.clear()
        if left:
            self._count_dropped(self._sink, left)

    def _run(self) -> None:
        send: Send | None = None
        while batch := self._take_batch():
            try:
                send = send or self._connect()
                unwritable = self._send(send, batch)
            except Exception as error:  # noqa: BLE001 - nothing that goes wrong here may end the thread
                self._log_health(error)
                self._release(batch, dropped=True)
            else:
                self._log_health(None)
                self._release(unwritable, dropped=True)
                self._release([each for each in batch if not any(each is one for one in unwritable)], dropped=False)

    def _send(self, send: Send, batch: Sequence[TurnRecording]) -> list[TurnRecording]:
        """Send the traces in one request; returns those that cannot be encoded.

        Where there is such a one, they are sent one by one.

        Raises:
            Exception: the collector did not take them.
        """
        try:
            send([redact_trace(recording, self._redactor) for recording in batch])
        except UNWRITABLE:
            if len(batch) == 1:
                logger.exception("trace_unwritable", extra=batch[0].context.ids)
                return list(batch)
            return [unwritable for each in batch for unwritable in self._send(send, [each])]
        return []

    def _take_batch(self) -> list[TurnRecording]:
        """Wait for the next traces; an empty list when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            self._changed.wait_for(lambda: len(self._queue) >= BATCH or self._closing, LINGER_S)
            return [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]

    def _release(self, batch: Sequence[TurnRecording], *, dropped: bool) -> None:
        """Free the places of these traces."""
        with self._changed:
            count = min(self._held_spans, sum(len(recording.spans) for recording in batch))
            self._held_spans -= count
        if count and dropped:
            self._count_dropped(self._sink, count)

    def _log_health(self, error: Exception | None) -> None:
        """Log when the collector goes away and when it is back, not each failure."""
        if error is None and not self._healthy:
            logger.warning("trace_export_resumed", extra={"sink": self._sink})
        elif error is not None and self._healthy:
            logger.warning("trace_export_failing", extra={"sink": self._sink, "error": type(error).__name__})
        self._healthy = error is None


def redact_trace(recording: TurnRecording, redactor: Redactor) -> TraceData:
    """The turn with every text redacted and cut."""
    context = recording.context
    redact = partial(redactor.redact_value, hidden=tuple(leaf_texts(recording.hidden)))
    spans = tuple(_redact_span(each, redact) for each in recording.spans)
    return TraceData(recording.trace_id, context.run_id, context.session_id, spans)


def _redact_span(span: RecordedSpan, redact: Redact) -> SpanData:
    return SpanData(
        span_id=span.span_id,
        parent_id=span.parent_id,
        kind=span.kind,
        name=cut_texts(redact(span.name)),
        begun_ns=span.begun_ns,
        ended_ns=max(span.ended_ns, span.begun_ns),
        inputs=_redact_content(span.inputs, redact),
        outputs=_redact_content(span.outputs, redact),
        error=cut_texts(redact(span.error)),
        attributes=cut_texts(redact(_encodable(span.attributes))),
    )


def _redact_content(content: SpanContent | None, redact: Redact) -> Any:
    """The inputs or outputs of a span; a function that fails costs this one text."""
    if content is None:
        return None
    try:
        return cut_texts(redact(_encodable(content())))
    except Exception as error:  # noqa: BLE001 - what models and tools have said may be of any form
        return f"(not exported: {type(error).__name__})"


def cut_texts(value: Any) -> Any:
    """The value with each text cut to `MAX_TEXT_CHARACTERS`, and without what UTF-8 cannot encode.

    Call it after the redaction: half a secret is not recognised.
    """
    match value:
        case str():
            text = value.encode(errors="replace").decode()
            return text if len(text) <= MAX_TEXT_CHARACTERS else text[:MAX_TEXT_CHARACTERS] + ELLIPSIS
        case dict():
            return {cut_texts(name): cut_texts(each) for name, each in value.items()}
        case list():
            return [cut_texts(each) for each in value]
    return value


def _encodable(value: Any) -> Any:
    """The value as JSON, its long integers as text."""
    return _shorten_integers(sanitize_json(value))


def _shorten_integers(value: Any) -> Any:
    match value:
        case dict():
            return {name: _shorten_integers(each) for name, each in value.items()}
        case list():
            return [_shorten_integers(each) for each in value]
        case int() if value.bit_length() > MAX_INTEGER_BITS:
            return str(value)
    return value
