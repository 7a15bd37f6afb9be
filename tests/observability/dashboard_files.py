"""Which queries do the dashboards ask, and does a Prometheus answer them?"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from debian_monitoring import CONFIGS
from promql import names

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
"""Ray has a counter only from its first event on: these have none where nothing went wrong, or no answers are kept."""


@dataclass(frozen=True, slots=True)
class Query:
    dashboard: str
    panel: str
    expression: str
    """With Grafana's variables in it."""

    def asked(self, rate_interval: str = "1m") -> str:
        """As Grafana sends it when each variable stands at *All*."""
        expression = self.expression.replace("$__rate_interval", rate_interval)
        for variable, value in GRAFANAS.items():
            expression = expression.replace(variable, value)
        return re.sub(r"\$\{?[a-zA-Z_]\w*\}?", ".*", expression)


def dashboard(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def panels(path: Path) -> list[dict[str, Any]]:
    """Those that show something; rows, and what they hold, are laid flat."""
    listed = dashboard(path)["panels"]
    flat = [each for panel in listed for each in (panel, *panel.get("panels", []))]
    return [panel for panel in flat if panel["type"] != "row"]


def queries(path: Path) -> Iterator[Query]:
    for panel in panels(path):
        for target in panel["targets"]:
            yield Query(path.stem, panel["title"], target["expr"])


def variables(path: Path) -> Iterator[Query]:
    """What its variables are filled from, as queries that give a series where there is a value."""
    for variable in dashboard(path)["templating"]["list"]:
        if variable["type"] == "query":
            series, _, _label = variable["query"]["query"].removeprefix("label_values(").rpartition(",")
            yield Query(path.stem, f"variable {variable['name']}", series)


def unanswered(prometheus: Prometheus, rate_interval: str = "1m", but: Collection[str] = ()) -> list[Query]:
    """The queries of all dashboards that give no series, those of the metrics in `but` aside.

    One that is no PromQL fails the test that asks.
    """
    asked = [query for path in DASHBOARDS for query in (*queries(path), *variables(path))]
    empty = [query for query in asked if not prometheus.query(query.asked(rate_interval))]
    return [query for query in empty if not names(query.asked()) & set(but)]
