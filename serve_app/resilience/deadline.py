"""Deadlines of requests, and times that are left or elapsed.

A deadline is a Unix time, because it crosses processes; the clocks of one cluster agree far better than a turn takes.
To a process whose clock is behind, a deadline seems far away; so each process also allows a request no more than the
time-out that came with it. A process whose clock is ahead ends requests too early; `/readyz` reports the wrong clock.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from serve_app.errors import DeadlineExceeded

if TYPE_CHECKING:
    from serve_app.values import Context

TIMER_S = 0.01
"""A timer may fire so much too early: uvloop's count whole milliseconds, by a clock of its own."""


def local_deadline(context: Context, now: float | None = None) -> float:
    """Return the Unix time at which this process gives the request up.

    By its own clock. Call it once, where the request arrives, and not in a loop: on a clock that is behind, the result
    moves with `now`.
    """
    return min(context.deadline, (time.time() if now is None else now) + context.timeout_s)


def remaining_s(deadline: float, now: float | None = None) -> float:
    """Return the seconds until `deadline`, never negative."""
    return max(0.0, deadline - (time.time() if now is None else now))


def is_over(deadline: float) -> bool:
    """Return whether a timer that was set to `deadline` may have fired."""
    return remaining_s(deadline) <= TIMER_S


def call_timeout_s(deadline: float, timeout_s: float, now: float | None = None) -> float:
    """Return the seconds that a call may take: its time-out, cut by the deadline.

    Raises:
        DeadlineExceeded: no time is left, so that no work begins.
    """
    left_s = remaining_s(deadline, now)
    if left_s <= 0:
        raise DeadlineExceeded("The request's time ran out")
    return min(timeout_s, left_s)


def elapsed_ms(begun: float) -> float:
    """Return the milliseconds since `begun`, a reading of `time.monotonic`."""
    return round((time.monotonic() - begun) * 1000, 1)
