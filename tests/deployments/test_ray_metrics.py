"""When does Ray learn what was observed?"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serve_app.deployments.replica_metrics import FLUSH_EVERY_S, RayMetrics
from serve_app.observability.metric_catalogue import STORE_CALLS, STORE_S

if TYPE_CHECKING:
    from serve_app.values import Metric


@dataclass
class RaysOwn:
    """A metric as Ray's takes it, and what it was told."""

    told: list[tuple[float, dict[str, str]]] = field(default_factory=list)

    def inc(self, by: float, labels: dict[str, str]) -> None:
        assert by > 0, "Ray refuses to count nothing"
        self.told.append((by, labels))

    def observe(self, value: float, labels: dict[str, str]) -> None:
        self.told.append((value, labels))


class Watched(RayMetrics):
    """Tells metrics that can be looked at."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(lambda: self.now)
        self.made: dict[Metric, RaysOwn] = {}

    def _instrument(self, metric: Metric) -> Any:
        return self.made.setdefault(metric, RaysOwn())


def test_what_is_counted_at_about_one_time_is_told_together_by_its_labels() -> None:
    metrics = Watched()
    for _ in range(3):
        metrics.count(STORE_CALLS, store="redis", outcome="ok")
    metrics.count(STORE_CALLS, store="redis", outcome="error")
    assert not metrics.made
    metrics.now += FLUSH_EVERY_S
    metrics.count(STORE_CALLS, store="redis", outcome="ok")
    told = {labels["outcome"]: by for by, labels in metrics.made[STORE_CALLS].told}
    assert told == {"ok": 4, "error": 1}
    metrics.flush()
    assert len(metrics.made[STORE_CALLS].told) == 2, "what was told is told once"


def test_what_waits_is_told_when_the_process_tells_of_itself() -> None:
    metrics = Watched()
    metrics.count(STORE_CALLS, 0, store="redis", outcome="ok")
    metrics.count(STORE_CALLS, 2, store="milvus", outcome="ok")
    metrics.flush()
    assert metrics.made[STORE_CALLS].told == [(2, {"store": "milvus", "outcome": "ok"})]


def test_a_histogram_is_told_each_value_with_the_others_of_its_time() -> None:
    metrics = Watched()
    metrics.observe(STORE_S, 0.5, store="redis")
    metrics.observe(STORE_S, 0.5, store="redis")
    assert not metrics.made
    metrics.now += FLUSH_EVERY_S
    metrics.observe(STORE_S, 0.7, store="milvus")
    told = [(0.5, {"store": "redis"}), (0.5, {"store": "redis"}), (0.7, {"store": "milvus"})]
    assert metrics.made[STORE_S].told == told
    metrics.flush()
    assert metrics.made[STORE_S].told == told, "what was told is told once"


def test_nothing_is_lost_between_threads() -> None:
    metrics = Watched()

    def work() -> None:
        for number in range(5_000):
            metrics.count(STORE_CALLS, store=f"s{number % 3}", outcome="ok")
            metrics.observe(STORE_S, number, store="redis")
            metrics.now += FLUSH_EVERY_S / 7

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    metrics.flush()
    counted: Counter[str] = Counter()
    for by, labels in metrics.made[STORE_CALLS].told:
        counted[labels["store"]] += int(by)
    assert counted == {"s0": 6668, "s1": 6668, "s2": 6664}
    observed = Counter(value for value, _ in metrics.made[STORE_S].told)
    assert observed == {float(number): 4 for number in range(5_000)}
