"""How much time is left, and how much was taken?

A deadline is a Unix time, because it crosses processes; clocks of one cluster agree to far less than a turn's time. To
a process whose clock is behind, a deadline seems far away, so that whoever a request comes to allows it no more than
the time that it was given. One whose clock is ahead ends it too early: a request cannot show that its time is not over,
but `/readyz` says that the clock is wrong.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from serve_app.errors import DeadlineExceeded

if TYPE_CHECKING:
    from serve_app.values import Context


def until(context: Context, now: float | None = None) -> float:
    """The Unix time at which this process gives the request up, by its own clock.

    To be asked once where the request arrives, and not again in a loop: on a clock that is behind it moves with `now`.
    """
    return min(context.deadline, (time.time() if now is None else now) + context.timeout_s)


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
