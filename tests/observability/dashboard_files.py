"""The queries of the dashboards, and those that a Prometheus answers with nothing."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from debian_monitoring import CONFIGS
from promql_names import names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from debian_monitoring import Prometheus

DASHBOARDS = sorted((CONFIGS / "grafana" / "dashboards").glob("*.json"))
GRAFANAS = {"$__rate_interval": "1m", "$__interval": "15s", "$__range": "1h"}
RARE = {
    "ray_serve_app_recoveries_total",
    "ray_serve_app_sessions_repaired_total",
    "ray_serve_app_dropped_spans_total",
    "ray_serve_app_cache_lookups_total",
    "ray_serve_app_admission_wait_seconds_bucket",
    "ray_serve_app_limiter_failures_total",
    "application:serve_app_recoveries:increase15m",
    "application_outcome:serve_app_sessions_repaired:increase15m",
}
"""Ray exports a counter from its first event on: a service without such events has none of these."""


@dataclass(frozen=True, slots=True)
class Query:
    dashboard: str
    panel: str
    expression: str
    """With Grafana's variables in it."""

    def as_sent(self, rate_interval: str = "1m") -> str:
        """The query as Grafana sends it with each variable at *All*."""
        expression = self.expression.replace("$__rate_interval", rate_interval)
        for variable, value in GRAFANAS.items():
            expression = expression.replace(variable, value)
        return re.sub(r"\$\{?[a-zA-Z_]\w*\}?", ".*", expression)


def dashboard(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def panels(path: Path) -> list[dict[str, Any]]:
    """The panels that show something, also those inside of rows."""
    listed = dashboard(path)["panels"]
    flat = [each for panel in listed for each in (panel, *panel.get("panels", []))]
    return [panel for panel in flat if panel["type"] != "row"]


def queries(path: Path) -> Iterator[Query]:
    for panel in panels(path):
        for target in panel["targets"]:
            yield Query(path.stem, panel["title"], target["expr"])


def variables(path: Path) -> Iterator[Query]:
    """The queries that fill its variables."""
    for variable in dashboard(path)["templating"]["list"]:
        if variable["type"] == "query":
            series, _, _label = variable["query"]["query"].removeprefix("label_values(").rpartition(",")
            yield Query(path.stem, f"variable {variable['name']}", series)


def unanswered(prometheus: Prometheus, rate_interval: str = "1m", but: Collection[str] = ()) -> list[Query]:
    """The queries of all dashboards that give no series; those of the metrics in `but` are left out."""
    everything = [query for path in DASHBOARDS for query in (*queries(path), *variables(path))]
    empty = [query for query in everything if not prometheus.query(query.as_sent(rate_interval))]
    return [query for query in empty if not names(query.as_sent()) & set(but)]
