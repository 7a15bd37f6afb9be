"""Which turns' traces are kept?

Decided twice. At the beginning by the trace's id, so that every hop and every service with the same share decides alike
and can be told in the `traceparent`; and at the end, when the turn has failed or its answer lacks something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serve_app.observability.traceparent import Origin
    from serve_app.values import FinalStatus

RANDOM_DIGITS = 14
"""The last 56 bits of a trace id are random, says W3C Trace Context level 2; those of a UUID are too."""
ALWAYS_KEPT: frozenset[FinalStatus] = frozenset({"failed", "degraded"})


def sampled(origin: Origin, share: float) -> bool:
    """Whether the trace is kept whatever becomes of the turn: `share` (0-1) of all, and those that the caller keeps."""
    return origin.sampled or int(origin.trace_id[-RANDOM_DIGITS:], 16) >= (1 - share) * 16**RANDOM_DIGITS


def kept(end: FinalStatus, *, sampled: bool) -> bool:
    """Whether the trace of a turn that has ended so is kept."""
    return sampled or end in ALWAYS_KEPT
