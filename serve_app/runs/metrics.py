"""What is counted of a run?

Its end is counted once, by the process whose write ended it in Redis: the agent that ran it, or whoever cancelled it.
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
from serve_app.observability.null import NULL_METRICS
from serve_app.values import Answer, Failed

if TYPE_CHECKING:
    from collections.abc import Collection

    from serve_app.ports import Metrics
    from serve_app.values import EventData

TOOL = "tool:"


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """Counts runs; `tools` are those that the configuration names."""

    metrics: Metrics = NULL_METRICS
    tools: frozenset[str] = frozenset()

    def begun(self, waited_s: float) -> None:
        """An agent began to work on a run that nobody ran before."""
        self.metrics.observe(QUEUE_WAIT_S, max(0.0, waited_s))

    def recovered(self) -> None:
        """A run was taken over from a process that died."""
        self.metrics.count(RECOVERIES)

    def said(self, after_s: float) -> None:
        """The first token of a run was said."""
        self.metrics.observe(FIRST_TOKEN_S, max(0.0, after_s), variant=STABLE)

    def ended(self, last: EventData, lived_s: float) -> None:
        """A run ended with the event `last`, so long after its registration."""
        status = last.status if isinstance(last, Answer) else "error" if isinstance(last, Failed) else "cancelled"
        self.metrics.count(TURNS, status=status, variant=STABLE)
        self.metrics.observe(TURN_S, max(0.0, lived_s), status=status, variant=STABLE)
        for part in last.degraded if isinstance(last, Answer) else ():
            self.metrics.count(DEGRADED, part=self._bounded(part))

    def running(self, ages_s: Collection[float]) -> None:
        """How old the runs of this process are."""
        self.metrics.set(IN_FLIGHT, len(ages_s))
        self.metrics.set(OLDEST_S, max(ages_s, default=0.0))

    def _bounded(self, part: str) -> str:
        named = part.startswith(TOOL) and part.removeprefix(TOOL) not in self.tools
        return f"{TOOL}{UNKNOWN}" if named else part


NO_METRICS = RunMetrics()
