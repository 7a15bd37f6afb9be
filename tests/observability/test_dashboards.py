"""Each panel of the dashboards shows something, and says in what unit."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml
from dashboard_files import DASHBOARDS, Query, dashboard, panels, queries, unanswered, variables
from debian_monitoring import CONFIGS, hurried, prometheus, wait_until
from promql_names import unknown
from rule_files import RULES, recorded, runbook_queries
from sample_metrics_page import page, serve_page

from serve_app.observability import metric_catalogue

if TYPE_CHECKING:
    from pathlib import Path

each_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
MISSION = {
    ("overview", "Turns, p50 p95 p99"): 2,
    ("overview", "Answered"): 0.99,
    ("overview", "Satisfied, 1 day"): 0.8,
    ("overview", "Turns in flight per replica"): 960,
    ("agent-and-models", "Success"): 0.95,
    ("tools-and-retriever", "Success"): 0.95,
    ("tools-and-retriever", "Search, p50 p95 p99"): 0.5,
}


@each_dashboard
def test_a_panel_has_a_title_a_description_a_unit_a_legend_and_the_data_source_of_the_dashboard(path: Path) -> None:
    for panel in panels(path):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for part in (panel, *panel["targets"]):
            assert part["datasource"]["uid"] == "${datasource}"
        legends = [target["legendFormat"] for target in panel["targets"]]
        assert all(legends)
        assert len(set(legends)) == len(legends), f"{panel['title']}: two queries are called the same"


@each_dashboard
def test_a_legend_names_labels_that_its_query_keeps(path: Path) -> None:
    for panel in panels(path):
        for target in panel["targets"]:
            grouped_by = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
            levels = {part for level in re.findall(r"\b(\w+):serve_app_", target["expr"]) for part in level.split("_")}
            scrape = {"instance", "node"}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= grouped_by | levels | scrape, panel["title"]


@each_dashboard
def test_the_panels_do_not_overlap_and_have_ids_of_their_own(path: Path) -> None:
    listed = dashboard(path)["panels"]
    assert len({panel["id"] for panel in listed}) == len(listed)
    places = [(panel["title"], panel["gridPos"]) for panel in listed]
    for (one, a), (other, b) in itertools.combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, f"{one} lies on {other}"
    assert all(place["x"] + place["w"] <= 24 for _, place in places)


@each_dashboard
def test_the_queries_use_only_variables_that_the_dashboard_has(path: Path) -> None:
    had = {variable["name"] for variable in dashboard(path)["templating"]["list"]}
    for query in (*queries(path), *variables(path)):
        used = set(re.findall(r"\$\{?([a-zA-Z_]\w*)", query.expression))
        assert {name for name in used if not name.startswith("__")} <= had, query


def test_the_thresholds_of_the_mission_are_drawn() -> None:
    for path in DASHBOARDS:
        for panel in panels(path):
            expected = MISSION.get((path.stem, panel["title"]))
            if expected is not None:
                steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
                assert expected in [step["value"] for step in steps], panel["title"]
    assert set(MISSION) <= {(path.stem, panel["title"]) for path in DASHBOARDS for panel in panels(path)}


def test_the_dashboards_read_only_metrics_that_exist() -> None:
    read = [query.as_sent() for path in DASHBOARDS for query in (*queries(path), *variables(path))]
    assert unknown(read, set(recorded())) == set()


def test_the_sample_page_has_each_metric_and_no_series_twice() -> None:
    series = [line.rpartition(" ")[0] for line in page(10).splitlines()]
    assert len(set(series)) == len(series)
    for metric in metric_catalogue.ALL:
        assert any(each.startswith(f"ray_{metric.name}") for each in series), metric.name


def test_no_two_dashboards_have_the_same_id() -> None:
    ids = [dashboard(path)["uid"] for path in DASHBOARDS]
    assert len(set(ids)) == len(ids) == 4


def test_rays_dashboards_are_generated_for_the_installed_ray(tmp_path: Path) -> None:
    script = CONFIGS / "grafana" / "generate_serve_dashboard.py"
    command = [sys.executable, "-W", "ignore::ResourceWarning", str(script), str(tmp_path / "ray")]
    subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)
    written = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "ray").iterdir()}
    assert set(written) == {"cluster", "serve", "serve-deployment"}
    assert all(each["panels"] and each["uid"] for each in written.values())


def test_compose_mounts_what_is_there_and_listens_on_loopback_only() -> None:
    document = yaml.safe_load((CONFIGS / "compose.yaml").read_text(encoding="utf-8"))
    services = document["services"]
    assert set(services) == {"prometheus", "alertmanager", "grafana"}
    made = {"./grafana/ray"}
    for service in services.values():
        sources = {volume.split(":")[0] for volume in service["volumes"]}
        assert all((CONFIGS / source).is_dir() for source in sources - made if source.startswith("./"))
        assert "ports" not in service
    listening = [each for name in ("prometheus", "alertmanager") for each in services[name]["command"]]
    assert "--web.listen-address=127.0.0.1:9090" in listening
    assert "--web.listen-address=127.0.0.1:9093" in listening
    assert services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"


@pytest.mark.long
def test_each_panel_each_recorded_rule_and_each_query_of_a_runbook_gives_series_of_a_busy_service(
    tmp_path: Path,
) -> None:
    hurried(RULES, tmp_path / "rules")
    with serve_page() as target, prometheus(tmp_path, target, tmp_path / "rules") as watching:
        empty: list[Query] = []

        def all_answer() -> bool:
            empty[:] = unanswered(watching)
            return not empty

        try:
            wait_until(all_answer, 60, "each panel has series")
        finally:
            print(*empty, sep="\n")
        for expression in (*recorded(), *runbook_queries()):
            if "< 1" not in expression:
                assert watching.query(expression), expression
