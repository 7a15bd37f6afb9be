"""Metrics of runs.

The end of a run is counted once, by the process whose write ended it in Redis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve_app.observability.metric_catalogue import (
    DEGRADED,
    FIRST_TOKEN_S,
    IN_FLIGHT,
    OLDEST_S,
    QUEUE_WAIT_S,
    RECOVERIES,
    STABLE,
    TURN_S,
    TURNS,
    UNKNOWN,
)
from serve_app.observability.metrics import NULL_METRICS
from serve_app.values import Answer, Failed

if TYPE_CHECKING:
    from collections.abc import Collection

    from serve_app.ports import Metrics
    from serve_app.values import EventData

TOOL = "tool:"


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """Counts runs; `tools` are the names in the configuration, which bound the labels."""

    metrics: Metrics = NULL_METRICS
    tools: frozenset[str] = frozenset()

    def count_begin(self, waited_s: float) -> None:
        """Count a run that a worker begins and that nobody ran before."""
        self.metrics.observe(QUEUE_WAIT_S, max(0.0, waited_s))

    def count_adoption(self) -> None:
        """Count a run that was adopted from a process that died."""
        self.metrics.count(RECOVERIES)

    def count_first_token(self, after_s: float) -> None:
        """Observe the time from the registration of a run to its first token."""
        self.metrics.observe(FIRST_TOKEN_S, max(0.0, after_s), variant=STABLE)

    def count_end(self, last: EventData, age_s: float) -> None:
        """Count a run that ended with the event `last`, `age_s` seconds after its registration."""
        status = last.status if isinstance(last, Answer) else "error" if isinstance(last, Failed) else "cancelled"
        self.metrics.count(TURNS, status=status, variant=STABLE)
        self.metrics.observe(TURN_S, max(0.0, age_s), status=status, variant=STABLE)
        for part in last.degraded if isinstance(last, Answer) else ():
            self.metrics.count(DEGRADED, part=self._bound_label(part))

    def set_running(self, ages_s: Collection[float]) -> None:
        """Set the number of runs in this process, and the age of the oldest."""
        self.metrics.set(IN_FLIGHT, len(ages_s))
        self.metrics.set(OLDEST_S, max(ages_s, default=0.0))

    def _bound_label(self, part: str) -> str:
        unknown = part.startswith(TOOL) and part.removeprefix(TOOL) not in self.tools
        return f"{TOOL}{UNKNOWN}" if unknown else part


NO_METRICS = RunMetrics()
