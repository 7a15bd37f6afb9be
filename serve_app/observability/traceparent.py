"""To which trace does a turn belong, and how does the next hop learn of it?

By W3C Trace Context: `00-TRACE-SPAN-FLAGS`. The turn of a caller that names no trace begins one: the run's id is the
trace's, so that every process comes to the same one. The root's span id is the first half of the run's id, whoever
named the trace, by the rule with which LangSmith maps its run ids to spans.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve_app.values import Context

HEADER = "traceparent"
SPAN_ID_DIGITS = 16
_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_SAMPLED = 1

_carried: ContextVar[str] = ContextVar("traceparent", default="")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a turn comes from."""

    trace_id: str
    caller_id: str
    """The caller's span; empty where the turn begins the trace."""
    sampled: bool
    """Whether the caller wants the trace kept."""


def given(header: str | None) -> str:
    """The header, if it is one; empty where a trace is to be begun."""
    return header if header and _FORM.fullmatch(header) else ""


def origin(context: Context) -> Origin | None:
    """The trace that the request belongs to; None where the run's id makes none."""
    header = passed_on(context)
    if not header:
        return None
    _, trace_id, caller_id, flags = header.split("-")
    return Origin(trace_id, caller_id if context.traceparent else "", bool(int(flags, 16) & _SAMPLED))


def root_id(run_id: str) -> str:
    """The span that the turn itself is."""
    return run_id[:SPAN_ID_DIGITS]


def traceparent(trace_id: str, span_id: str, *, sampled: bool) -> str:
    """The header for what `span_id` asks of others."""
    return f"00-{trace_id}-{span_id}-{int(sampled):02x}"


def passed_on(context: Context) -> str:
    """The header of a hop that records nothing itself."""
    return given(context.traceparent) or given(traceparent(context.run_id, root_id(context.run_id), sampled=False))


def current() -> str:
    """The `traceparent` of the tool call that this code runs in, for what it asks of others; empty outside of one."""
    return _carried.get()


@contextmanager
def carrying(header: str) -> Iterator[None]:
    """Within the block, `current()` is this one."""
    token = _carried.set(header)
    try:
        yield
    finally:
        _carried.reset(token)
