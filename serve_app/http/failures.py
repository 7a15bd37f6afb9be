"""How often may an address show a wrong key?"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 10_000
"""Addresses that are remembered, one megabyte of them: who has more than that has as many tries."""


class Failures:
    """The wrong keys of each address, in this process: nobody guesses 256 bits, and a try is to cost no round trip.

    By GCRA, the generic cell rate algorithm of ITU-T I.371: an address has one number, the time at which all it did is
    paid for, and may be ahead of now by as much as the burst is worth.
    """

    def __init__(self, per_minute: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._each_s = 60 / per_minute
        self._ahead_s = burst * self._each_s
        self._clock = clock
        self._paid_at: OrderedDict[str, float] = OrderedDict()

    def add(self, address: str) -> float:
        """Count one more; 0, or the seconds after which the next one would be counted, where this one is too many."""
        now = self._clock()
        paid_at = max(self._paid_at.get(address, now), now) + self._each_s
        if (wait_s := paid_at - now - self._ahead_s) > 1e-9:  # noqa: PLR2004 - what adding up leaves over
            return wait_s
        self._paid_at[address] = paid_at
        self._paid_at.move_to_end(address)
        if len(self._paid_at) > MOST:
            self._paid_at.popitem(last=False)
        return 0.0
