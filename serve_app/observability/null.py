"""Metrics and traces for processes that export none, and metrics in memory for tests."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serve_app.observability.traceparent import outgoing_traceparent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serve_app.ports import AttributeValue, SpanContent, SpanKind
    from serve_app.values import Answer, ChatRequest, Context, Failed, FinalStatus, Metric, MetricKind

Labels = tuple[tuple[str, str], ...]


class NullMetrics:
    """Records nothing; implements `ports.Metrics`."""

    def count(self, metric: Metric, by: float = 1, **labels: str) -> None:
        """Do nothing."""

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Do nothing."""

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""


NULL_METRICS = NullMetrics()


@dataclass(frozen=True, slots=True)
class NullSpan:
    """Records nothing, but passes a caller's trace on; implements `ports.TurnSpan`."""

    traceparent: str = ""

    def start_child(self, kind: SpanKind, name: str, inputs: SpanContent | None = None) -> NullSpan:  # noqa: ARG002 - see the port
        return self

    def set_attributes(self, **attributes: AttributeValue) -> None:
        """Do nothing."""

    def set_outputs(self, outputs: SpanContent) -> None:
        """Do nothing."""

    def set_error(self, error: str) -> None:
        """Do nothing."""

    def hide_values(self, values: Iterable[Any]) -> None:
        """Do nothing."""

    def set_outcome(self, outcome: FinalStatus, last: Answer | Failed | None = None) -> None:
        """Do nothing."""

    def __enter__(self) -> NullSpan:
        return self

    def __exit__(self, *_: Any) -> None:
        """Do nothing."""


NULL_SPAN = NullSpan()


class NullTracer:
    """Records no turn; implements `ports.Tracer`."""

    def start_turn(self, context: Context, request: ChatRequest) -> NullSpan:  # noqa: ARG002 - see the port
        return NullSpan(outgoing_traceparent(context))

    async def shutdown(self) -> None:
        """Do nothing."""


class InMemoryMetrics:
    """Keeps every observation, and refuses what the metric catalogue does not allow; implements `ports.Metrics`."""

    def __init__(self) -> None:
        self.counted: dict[Metric, Counter[Labels]] = defaultdict(Counter)
        self.observed: dict[Metric, dict[Labels, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.gauges: dict[Metric, dict[Labels, float]] = defaultdict(dict)

    def count(self, metric: Metric, by: float = 1, **labels: str) -> None:
        self.counted[metric][_check(metric, "counter", labels)] += by  # type: ignore[assignment]

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        self.observed[metric][_check(metric, "histogram", labels)].append(value)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        self.gauges[metric][_check(metric, "gauge", labels)] = value

    def flush(self) -> None:
        """Do nothing: all of it stays here."""

    def of(self, metric: Metric) -> dict[Labels | str, float]:
        """A counter's or a gauge's values, or how often a histogram was observed.

        The keys are the labels; of a metric with one label, that label's value.
        """
        observed = {labels: float(len(values)) for labels, values in self.observed[metric].items()}
        values: dict[Labels, float] = {**self.counted[metric], **observed, **self.gauges[metric]}
        return {labels[0][1] if len(labels) == 1 else labels: value for labels, value in values.items()}


def _check(metric: Metric, kind: MetricKind, labels: dict[str, str]) -> Labels:
    """The labels in the catalogue's order.

    Raises:
        ValueError: the metric is of another kind, or has other labels.
    """
    if metric.kind != kind or set(labels) != set(metric.labels):
        raise ValueError(f"{metric.name} is a {metric.kind} of {metric.labels}, not a {kind} of {tuple(labels)}")
    return tuple((label, labels[label]) for label in metric.labels)
