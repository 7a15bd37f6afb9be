"""W3C Trace Context of a turn, and the sampling of traces.

The header is `00-TRACE-SPAN-FLAGS`. A turn whose caller sends none begins a trace, with the run's id as the trace id:
every process comes to the same one. The root's span id is the first half of the run's id, whoever began the trace:
LangSmith maps its run ids to span ids by the same rule.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve_app.values import Context, FinalStatus

HEADER = "traceparent"
SPAN_ID_DIGITS = 16
RANDOM_DIGITS = 14
"""The last 56 bits of a trace id are random (W3C Trace Context level 2); those of a UUID are too."""
ALWAYS_EXPORTED: frozenset[FinalStatus] = frozenset({"failed", "degraded"})
_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_SAMPLED = 1

_current: ContextVar[str] = ContextVar("traceparent", default="")


@dataclass(frozen=True, slots=True)
class TraceOrigin:
    """The trace that a turn belongs to, and the caller's span in it."""

    trace_id: str
    caller_id: str
    """The caller's span id; empty where the turn begins the trace."""
    sampled: bool
    """Whether the caller has sampled the trace."""


def valid_traceparent(header: str | None) -> str:
    """The header where it is well formed, else an empty string."""
    return header if header and _FORM.fullmatch(header) else ""


def format_traceparent(trace_id: str, span_id: str, *, sampled: bool) -> str:
    """The header for a call that is made within the span."""
    return f"00-{trace_id}-{span_id}-{int(sampled):02x}"


def outgoing_traceparent(context: Context) -> str:
    """The header that a process sends on when it records no span itself."""
    own = format_traceparent(context.run_id, root_span_id(context.run_id), sampled=False)
    return valid_traceparent(context.traceparent) or valid_traceparent(own)


def trace_origin(context: Context) -> TraceOrigin | None:
    """The trace of the request; None where the run's id is no trace id."""
    header = outgoing_traceparent(context)
    if not header:
        return None
    _, trace_id, caller_id, flags = header.split("-")
    return TraceOrigin(trace_id, caller_id if context.traceparent else "", bool(int(flags, 16) & _SAMPLED))


def root_span_id(run_id: str) -> str:
    """The id of the turn's own span."""
    return run_id[:SPAN_ID_DIGITS]


def current() -> str:
    """The `traceparent` of the tool call that this code runs in.

    Send it with requests that the tool makes. It is empty outside of a tool call.
    """
    return _current.get()


@contextmanager
def use_traceparent(header: str) -> Iterator[None]:
    """Make `current()` return this header within the block."""
    token = _current.set(header)
    try:
        yield
    finally:
        _current.reset(token)


def is_sampled(origin: TraceOrigin, share: float) -> bool:
    """Head sampling: whether the trace is exported whatever the outcome of its turn.

    True for `share` (0-1) of all trace ids, and for those that the caller has sampled. Every service with the same
    share decides alike, so the decision can be sent on in the `traceparent`.
    """
    return origin.sampled or int(origin.trace_id[-RANDOM_DIGITS:], 16) >= (1 - share) * 16**RANDOM_DIGITS


def is_exported(outcome: FinalStatus, *, sampled: bool) -> bool:
    """Tail sampling: sampled traces are exported, and those of failed or degraded turns."""
    return sampled or outcome in ALWAYS_EXPORTED
