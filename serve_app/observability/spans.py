"""The spans of one turn: recorded while it runs, or only passed on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from serve_app.observability.traceparent import SPAN_ID_DIGITS, format_traceparent, outgoing_traceparent, root_span_id
from serve_app.values import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from serve_app.observability.traceparent import TraceOrigin
    from serve_app.ports import AttributeValue, SpanContent, SpanKind
    from serve_app.values import ChatRequest, Context, Failed, FinalStatus

CANCELLED = "cancelled"


@dataclass(slots=True)
class TurnRecording:
    """The spans of one turn, the root first."""

    trace_id: str
    context: Context
    sampled: bool
    clock: Callable[[], int]
    """Unix time in nanoseconds."""
    spans: list[RecordedSpan] = field(default_factory=list)
    hidden: list[Any] = field(default_factory=list)
    """Values that are masked in every span."""

    def start_span(
        self, span_id: str, parent_id: str, kind: SpanKind, name: str, inputs: SpanContent | None
    ) -> RecordedSpan:
        """A span that begins now."""
        span = RecordedSpan(self, span_id, parent_id, kind, name, self.clock(), inputs)
        self.spans.append(span)
        return span


@dataclass(slots=True)
class RecordedSpan:
    """One span, open while its block runs; implements `ports.TurnSpan`. Only the root has an outcome."""

    recording: TurnRecording
    span_id: str
    parent_id: str
    kind: SpanKind
    name: str
    begun_ns: int
    inputs: SpanContent | None
    outputs: SpanContent | None = None
    ended_ns: int = 0
    error: str = ""
    attributes: dict[str, AttributeValue] = field(default_factory=dict)
    outcome: FinalStatus | None = None

    @property
    def traceparent(self) -> str:
        return format_traceparent(self.recording.trace_id, self.span_id, sampled=self.recording.sampled)

    def start_child(self, kind: SpanKind, name: str, inputs: SpanContent | None = None) -> RecordedSpan:
        span_id = uuid4().hex[:SPAN_ID_DIGITS]
        return self.recording.start_span(span_id, self.span_id, kind, name, inputs)

    def set_attributes(self, **attributes: AttributeValue) -> None:
        self.attributes.update(attributes)

    def set_outputs(self, outputs: SpanContent) -> None:
        self.outputs = outputs

    def set_error(self, error: str) -> None:
        self.error = error

    def hide_values(self, values: Iterable[Any]) -> None:
        self.recording.hidden += values

    def set_outcome(self, outcome: FinalStatus, last: Answer | Failed | None = None) -> None:
        self.outcome = outcome
        self.set_attributes(status=outcome, **_answer_attributes(last))
        if last:
            self.set_outputs(partial(_result_text, last))
        if last and not isinstance(last, Answer):
            self.set_error(f"{last.error.code}: {last.error.message}")
        elif outcome == CANCELLED:
            self.set_error(CANCELLED)

    def __enter__(self) -> RecordedSpan:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self.ended_ns = self.recording.clock()
        if error is not None:
            self.error = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else CANCELLED


def start_root_span(
    context: Context,
    request: ChatRequest,
    origin: TraceOrigin,
    *,
    sampled: bool,
    clock: Callable[[], int] = time.time_ns,
) -> RecordedSpan:
    """The root span of a turn that begins now."""
    recording = TurnRecording(origin.trace_id, context, sampled, clock)
    own_id = root_span_id(context.run_id)
    root = recording.start_span(own_id, origin.caller_id, "turn", "serve_app", lambda: request.user_input)
    root.set_attributes(stream=request.stream)
    return root


@dataclass(frozen=True, slots=True)
class NullSpan:
    """Records nothing, but passes a caller's trace on; implements `ports.TurnSpan`."""

    traceparent: str = ""

    def start_child(self, kind: SpanKind, name: str, inputs: SpanContent | None = None) -> NullSpan:  # noqa: ARG002 - see the port
        return self

    def set_attributes(self, **attributes: AttributeValue) -> None:
        """Do nothing."""

    def set_outputs(self, outputs: SpanContent) -> None:
        """Do nothing."""

    def set_error(self, error: str) -> None:
        """Do nothing."""

    def hide_values(self, values: Iterable[Any]) -> None:
        """Do nothing."""

    def set_outcome(self, outcome: FinalStatus, last: Answer | Failed | None = None) -> None:
        """Do nothing."""

    def __enter__(self) -> NullSpan:
        return self

    def __exit__(self, *_: Any) -> None:
        """Do nothing."""


NULL_SPAN = NullSpan()


class NullTracer:
    """Records no turn; implements `ports.Tracer`."""

    def start_turn(self, context: Context, request: ChatRequest) -> NullSpan:  # noqa: ARG002 - see the port
        return NullSpan(outgoing_traceparent(context))

    async def shutdown(self) -> None:
        """Do nothing."""


def _answer_attributes(last: Answer | Failed | None) -> dict[str, AttributeValue]:
    if not isinstance(last, Answer):
        return {}
    return {
        "model": last.model,
        "degraded": list(last.degraded),
        "input_tokens": last.usage.input_tokens,
        "output_tokens": last.usage.output_tokens,
    }


def _result_text(last: Answer | Failed) -> str:
    return last.result if isinstance(last, Answer) else last.error.message
