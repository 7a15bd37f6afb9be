"""What of a recorded turn leaves the process? Nothing that was not redacted, and no text without end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from serve_app.observability.redaction import leaf_texts
from serve_app.values.sanitize import sanitize_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serve_app.observability.redaction import Redactor
    from serve_app.observability.spans import Recorded, Recording
    from serve_app.ports import AttributeValue, SpanContent, SpanKind

    Redact = Callable[[Any], Any]

MAX_CHARACTERS = 32_000
"""Of one text: a user's message at its longest."""
CUT = " …"
MOST_BITS = 63
"""Of an integer: a longer one has no place in OTLP, nor in LangSmith's JSON."""


@dataclass(frozen=True, slots=True)
class Span:
    """A span that may be told; its times are Unix time in nanoseconds."""

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
class Trace:
    """A turn that may be told, its spans with the root first."""

    trace_id: str
    run_id: str
    session_id: str
    spans: tuple[Span, ...]


def leaving(recording: Recording, redactor: Redactor) -> Trace:
    """The turn as it may leave."""
    context = recording.context
    redact = partial(redactor.redact_value, hidden=tuple(leaf_texts(recording.hidden)))
    spans = tuple(_span(each, redact) for each in recording.spans)
    return Trace(recording.trace_id, context.run_id, context.session_id, spans)


def _span(recorded: Recorded, redact: Redact) -> Span:
    return Span(
        span_id=recorded.span_id,
        parent_id=recorded.parent_id,
        kind=recorded.kind,
        name=cut(redact(recorded.name)),
        begun_ns=recorded.begun_ns,
        ended_ns=max(recorded.ended_ns, recorded.begun_ns),
        inputs=_content(recorded.inputs, redact),
        outputs=_content(recorded.outputs, redact),
        error=cut(redact(recorded.error)),
        attributes=cut(redact(_sendable(recorded.attributes))),
    )


def _content(telling: SpanContent | None, redact: Redact) -> Any:
    """What the telling says; its failure costs this one text."""
    if telling is None:
        return None
    try:
        return cut(redact(_sendable(telling())))
    except Exception as error:  # noqa: BLE001 - what models and tools have said may be of any form
        return f"(not told: {type(error).__name__})"


def cut(value: Any) -> Any:
    """The same with no text beyond what may be told, and none that UTF-8 cannot write.

    After the redaction: nobody recognises half of a secret.
    """
    match value:
        case str():
            shown = value.encode(errors="replace").decode()
            return shown if len(shown) <= MAX_CHARACTERS else shown[:MAX_CHARACTERS] + CUT
        case dict():
            return {cut(name): cut(each) for name, each in value.items()}
        case list():
            return [cut(each) for each in value]
    return value


def _sendable(value: Any) -> Any:
    """The same as JSON, with integers that a sink has room for."""
    return _short_integers(sanitize_json(value))


def _short_integers(value: Any) -> Any:
    match value:
        case dict():
            return {name: _short_integers(each) for name, each in value.items()}
        case list():
            return [_short_integers(each) for each in value]
        case int() if value.bit_length() > MOST_BITS:
            return str(value)
    return value
