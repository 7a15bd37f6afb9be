"""How much time is left, and how much was taken?

Deadlines are Unix times, because they cross processes; clocks of one cluster agree to far less than a turn's time.
"""

from __future__ import annotations

import time

from serve_app.errors import DeadlineExceeded


def remaining_s(deadline: float, now: float | None = None) -> float:
    """Seconds until `deadline`, never negative."""
    return max(0.0, deadline - (time.time() if now is None else now))


def limit_s(deadline: float, timeout_s: float, now: float | None = None) -> float:
    """Seconds that a call may take: its own time-out, cut by the request's deadline.

    Raises:
        DeadlineExceeded: nothing is left, so that no work is begun.
    """
    left_s = remaining_s(deadline, now)
    if left_s <= 0:
        raise DeadlineExceeded("The request's time ran out")
    return min(timeout_s, left_s)


def elapsed_ms(begun: float) -> float:
    """Milliseconds since `begun`, a reading of `time.monotonic`."""
    return round((time.monotonic() - begun) * 1000, 1)
