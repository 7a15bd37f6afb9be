"""Metrics of a replica, exported by Ray Serve, and the nodes' metrics pages."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import ray
from ray.serve import metrics as serve_metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve_app.values import Metric

logger = logging.getLogger(__name__)

CONNECT_S, PAGE_S = 1.0, 3.0
"""For one node's page. It takes 0.1 s, more after many restarts; a scrape waits for the slowest node."""
FLUSH_EVERY_S = 0.25
"""At a hundred turns a second, some 500 observations: Ray takes them in 2 ms, in which the event loop stands still."""


class RayMetrics:
    """Exports observations through Ray Serve, which adds the replica's name; implements `ports.Metrics`.

    Observations are kept for `FLUSH_EVERY_S` and flushed together, counters added up: Ray takes 4 µs for an
    observation, but 35 µs where other code ran since the last one, and it reports only every ten seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._instruments: dict[Metric, Any] = {}
        self._counted: dict[tuple[Metric, tuple[tuple[str, str], ...]], float] = {}
        self._observed: list[tuple[Metric, float, dict[str, str]]] = []
        self._clock = clock
        self._due = clock() + FLUSH_EVERY_S
        self._lock = threading.Lock()

    def count(self, metric: Metric, by: float = 1, **labels: str) -> None:
        key = metric, tuple(labels.items())
        with self._lock:
            self._counted[key] = self._counted.get(key, 0) + by
        self._flush_when_due()

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        with self._lock:
            self._observed.append((metric, value, labels))
        self._flush_when_due()

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        self._record(metric, "set", value, labels)

    def flush(self) -> None:
        """Pass on to Ray what has been counted and observed."""
        self._due = self._clock() + FLUSH_EVERY_S
        with self._lock:
            counted, self._counted = self._counted, {}
            observed, self._observed = self._observed, []
        for (metric, labels), by in counted.items():
            if by > 0:  # Ray refuses to count nothing
                self._record(metric, "inc", by, dict(labels))
        for metric, value, each_labels in observed:
            self._record(metric, "observe", value, each_labels)

    def _record(self, metric: Metric, method: str, value: float, labels: dict[str, str]) -> None:
        """Pass one number on to Ray; a refused one fails neither another nor the caller."""
        try:
            getattr(self._instrument(metric), method)(value, labels)
        except Exception:
            logger.exception("metric_refused", extra={"metric": metric.name})

    def _flush_when_due(self) -> None:
        if self._clock() >= self._due:
            self.flush()

    def _instrument(self, metric: Metric) -> Any:
        instrument = self._instruments.get(metric)
        if instrument is None:
            instrument = self._instruments[metric] = _create_instrument(metric)
        return instrument


async def read_node_pages() -> dict[str, str | None]:
    """The living nodes' metrics pages by address; None where a node did not answer."""
    nodes = [node for node in await asyncio.to_thread(ray.nodes) if node["Alive"]]
    addresses = [f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in nodes]
    timeout = httpx.Timeout(PAGE_S, connect=CONNECT_S)
    # Plain HTTP: to load the certificates of authorities would take 20 ms.
    async with httpx.AsyncClient(timeout=timeout, trust_env=False, verify=False) as client:  # noqa: S501
        pages = await asyncio.gather(*(_read_page(client, address) for address in addresses))
    return {node["NodeManagerAddress"]: page for node, page in zip(nodes, pages, strict=True)}


def _create_instrument(metric: Metric) -> Any:
    if metric.kind == "counter":
        return serve_metrics.Counter(metric.name, metric.help, metric.labels)
    if metric.kind == "gauge":
        return serve_metrics.Gauge(metric.name, metric.help, metric.labels)
    return serve_metrics.Histogram(metric.name, metric.help, list(metric.buckets), metric.labels)


async def _read_page(client: httpx.AsyncClient, address: str) -> str | None:
    try:
        async with asyncio.timeout(PAGE_S):
            response = await client.get(f"http://{address}/metrics")
        return response.raise_for_status().text
    except (httpx.HTTPError, TimeoutError):
        return None
    except Exception:
        logger.exception("metrics_page_unreadable", extra={"address": address})
        return None
