"""Who takes observations where no Ray does?"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serve_app.values import Metric, MetricKind


class NoMetrics:
    """Takes none; implements `ports.Metrics`."""

    def count(self, metric: Metric, by: float = 1, **labels: str) -> None:
        """Nothing."""

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Nothing."""

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Nothing."""

    def hand_over(self) -> None:
        """Nothing is kept."""


SILENT = NoMetrics()

Labels = tuple[tuple[str, str], ...]


class RecordedMetrics:
    """Keeps them all, and insists on what the catalogue says of each; implements `ports.Metrics`."""

    def __init__(self) -> None:
        self.counted: dict[Metric, Counter[Labels]] = defaultdict(Counter)
        self.observed: dict[Metric, dict[Labels, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.gauges: dict[Metric, dict[Labels, float]] = defaultdict(dict)

    def count(self, metric: Metric, by: float = 1, **labels: str) -> None:
        self.counted[metric][_checked(metric, "counter", labels)] += by  # type: ignore[assignment]

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        self.observed[metric][_checked(metric, "histogram", labels)].append(value)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        self.gauges[metric][_checked(metric, "gauge", labels)] = value

    def hand_over(self) -> None:
        """Everything is kept here."""

    def of(self, metric: Metric) -> dict[Labels | str, float]:
        """The counts of a counter, or how often a histogram was observed, by the labels; by its value where it is one.

        A gauge's values likewise.
        """
        observed = {labels: float(len(values)) for labels, values in self.observed[metric].items()}
        held: dict[Labels, float] = {**self.counted[metric], **observed, **self.gauges[metric]}
        return {labels[0][1] if len(labels) == 1 else labels: value for labels, value in held.items()}


def _checked(metric: Metric, kind: MetricKind, labels: dict[str, str]) -> Labels:
    """The labels in the catalogue's order.

    Raises:
        ValueError: the metric is of another kind, or has other labels.
    """
    if metric.kind != kind or set(labels) != set(metric.labels):
        raise ValueError(f"{metric.name} is a {metric.kind} of {metric.labels}, not a {kind} of {tuple(labels)}")
    return tuple((label, labels[label]) for label in metric.labels)
