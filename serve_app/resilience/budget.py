"""How often may one request be tried again, over all that it asks of others?"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Allowance:
    """What one call may take of a budget: `granted` retries, of which it says how many it `used`."""

    __slots__ = ("granted", "used")

    def __init__(self, granted: int) -> None:
        self.granted = granted
        self.used = 0


class Budget:
    """The retries of one request; calls that run side by side never use one twice."""

    def __init__(self, retries: int) -> None:
        self.left = retries

    def take(self) -> bool:
        """Use one retry now; False where none is left."""
        if self.left < 1:
            return False
        self.left -= 1
        return True

    @contextmanager
    def allowance(self, wanted: int) -> Iterator[Allowance]:
        """Up to `wanted` retries for the block; what it does not use is there for the next one."""
        allowance = Allowance(max(0, min(wanted, self.left)))
        self.left -= allowance.granted
        try:
            yield allowance
        finally:
            self.left += allowance.granted - min(allowance.granted, max(0, allowance.used))
