"""What of a recorded turn leaves the process? Nothing that was not redacted, and no text without end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serve_app.observability.spans import Recorded, Recording
    from serve_app.ports import Fact, SpanKind, Telling

    Redact = Callable[[str], str]

MAX_CHARACTERS = 32_000
"""Of one text: a user's message at its longest."""
CUT = " …"


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
    given: Any
    told: Any
    error: str
    facts: Mapping[str, Fact]


@dataclass(frozen=True, slots=True)
class Trace:
    """A turn that may be told, its spans with the root first."""

    trace_id: str
    run_id: str
    session_id: str
    spans: tuple[Span, ...]


def leaving(recording: Recording, redact: Redact) -> Trace:
    """The turn as it may leave."""
    context = recording.context
    spans = tuple(_span(each, redact) for each in recording.spans)
    return Trace(recording.trace_id, context.run_id, context.session_id, spans)


def _span(recorded: Recorded, redact: Redact) -> Span:
    return Span(
        span_id=recorded.span_id,
        parent_id=recorded.parent_id,
        kind=recorded.kind,
        name=redact(recorded.name),
        begun_ns=recorded.begun_ns,
        ended_ns=max(recorded.ended_ns, recorded.begun_ns),
        given=_content(recorded.given, redact),
        told=_content(recorded.told, redact),
        error=_text(recorded.error, redact),
        facts={name: redacted(fact, redact) for name, fact in recorded.facts.items()},
    )


def _content(telling: Telling | None, redact: Redact) -> Any:
    """What the telling says; its failure costs this one text."""
    if telling is None:
        return None
    try:
        return redacted(telling(), redact)
    except Exception as error:  # noqa: BLE001 - what models and tools have said may be of any form
        return f"(not told: {type(error).__name__})"


def redacted(value: Any, redact: Redact) -> Any:
    """The same as JSON, each text in it redacted; a number is a text too where there is something to redact in it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, redact)
    if isinstance(value, int | float):
        written = str(value)
        return value if (shown := redact(written)) == written else shown
    if isinstance(value, dict):
        return {_text(str(name), redact): redacted(each, redact) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(each, redact) for each in value]
    return _text(str(value), redact)


def _text(text: str, redact: Redact) -> str:
    """Redacted before it is cut: nobody recognises half of a secret. What UTF-8 cannot write is replaced."""
    shown = redact(text).encode(errors="replace").decode()
    return shown if len(shown) <= MAX_CHARACTERS else shown[:MAX_CHARACTERS] + CUT
