"""Merges the metrics pages of all nodes into one.

Ray labels a series with details of the process that wrote it, and keeps the counts of a dead process as long as its
node lives. Here series that differ in such labels only are added up, and those of dead replicas are left out, so their
number does not grow. `replica` stays a label: a restarted replica is a new series, and no sum falls.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

DROPPED = (
    "WorkerId",
    "SessionName",
    "Version",
    "Component",
    "JobId",
    "actor_id",
    "node_id",
    "handle",
    "pid",
    "otel_scope_name",
    "otel_scope_schema_url",
    "otel_scope_version",
)
FRESH_S = 5.0
"""A page is served for this long: making one takes a tenth of a second, and Ray writes every 10 s."""
PREFIX = "ray_"
"""Other metrics on a node's page describe the process that serves the page."""
LIVENESS_GAUGES = ("ray_serve_app_process_resident_bytes", "ray_serve_replica_processing_queries")
"""Gauges that every living replica sets; Ray drops them 20 s after its death."""
SCRAPE_UP = "serve_app_scrape_up"

_DROPPED = re.compile(rf'(?<=[{{,])(?:{"|".join(DROPPED)})="(?:[^"\\]|\\.)*",?')
_IN_NAME = re.compile(r'(="SERVE_REPLICA::[^"#]*#[^"#]*)#[^":]*')
"""The replica in the name of an actor or a task."""
_REPLICA = re.compile(r'[{,]replica="([^"]*)"')
_LARGEST = re.compile(r"(?:_status|_healthy|_state|_up|_percent|_percentage|_utilization|_ms|_s|_seconds)$")
"""Gauges that are merged to the largest value; others are added up."""

logger = logging.getLogger(__name__)

SeriesKey = tuple[str, tuple[tuple[str, str], ...]]
"""The name of a series, and its labels in order."""


@dataclass(slots=True)
class MergedFamily:
    """One metric family, merged of all pages."""

    family: Family
    values: dict[SeriesKey, float] = field(default_factory=dict)

    def add(self, samples: Iterable[Sample]) -> None:
        """Add the samples of one page."""
        largest = self.family.type == "gauge" and _LARGEST.search(self.family.name)
        for each in samples:
            key = (each.name, tuple(sorted((name, value) for name, value in each.labels.items() if value)))
            known = self.values.get(key)
            if known is None:
                self.values[key] = each.value
            else:
                self.values[key] = max(known, each.value) if largest else known + each.value

    def to_family(self) -> Family:
        """The family with the merged samples."""
        self.family.samples = [Sample(name, dict(labels), value) for (name, labels), value in self.values.items()]
        return self.family


class FamilyRegistry(CollectorRegistry):
    """Families as prometheus-client's writer reads them."""

    def __init__(self, families: Iterable[Family]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Family]:
        yield from self._families


class MetricsPage:
    """The merged page of all nodes, made once for all who read it within `FRESH_S`.

    `read_node_pages` gives each node's page by the node's address, None for a node that did not answer in time.
    """

    def __init__(self, read_node_pages: Callable[[], Awaitable[dict[str, str | None]]]) -> None:
        self._read_node_pages = read_node_pages
        self._page = b""
        self._fresh_until = float("-inf")
        self._lock = asyncio.Lock()

    async def read(self) -> bytes:
        """The page, no older than `FRESH_S`."""
        async with self._lock:
            if time.monotonic() >= self._fresh_until:
                self._page = await asyncio.to_thread(merge_pages, await self._read_node_pages())
                self._fresh_until = time.monotonic() + FRESH_S
        return self._page


def merge_pages(pages: Mapping[str, str | None]) -> bytes:
    """One page of all nodes' pages; `pages` has them by node.

    `serve_app_scrape_up` is 0 for a node without a readable page.
    """
    read = {node: _parse_page(page) for node, page in sorted(pages.items())}
    try:
        return _write_page(read)
    except Exception:
        logger.exception("metrics_pages_not_merged")
        return _write_page({node: families if _is_writable(families) else None for node, families in read.items()})


def _write_page(nodes: Mapping[str, list[Family] | None]) -> bytes:
    whole: dict[tuple[str, str], MergedFamily] = {}
    up = Family(SCRAPE_UP, "Whether the node's metrics page is part of this one.", "gauge")
    for node, families in nodes.items():
        up.add_sample(SCRAPE_UP, {"node": node}, float(families is not None))
        for family in families or ():
            empty = MergedFamily(Family(family.name, family.documentation, family.type))
            whole.setdefault((family.name, family.type), empty).add(family.samples)
    return generate_latest(FamilyRegistry([*(each.to_family() for each in whole.values()), up]))


def _is_writable(families: list[Family] | None) -> bool:
    """Whether this page alone can be written."""
    try:
        _write_page({"": families})
    except Exception:
        logger.exception("metrics_page_unreadable")
        return False
    return True


def _parse_page(page: str | None) -> list[Family] | None:
    """Ray's and our families of living replicas; None for an unreadable page.

    Unwanted labels and series are cut out of the text first: the parser takes most of the time.
    """
    if page is None:
        return None
    try:
        families = list(text_string_to_metric_families(_keep_living(_IN_NAME.sub(r"\1", _DROPPED.sub("", page)))))
    except Exception:
        logger.exception("metrics_page_unreadable")
        return None
    return [each for each in families if each.name.startswith(PREFIX) and each.samples]


def _keep_living(page: str) -> str:
    """The page without the series of dead replicas."""
    lines = page.splitlines(keepends=True)
    living = [match[1] for line in lines if line.startswith(LIVENESS_GAUGES) and (match := _REPLICA.search(line))]
    alive = {"", *living}
    return "".join(line for line in lines if (match := _REPLICA.search(line)) is None or match[1] in alive)
