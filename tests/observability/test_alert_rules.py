"""Each alert fires when it should, has a runbook, and is quiet otherwise."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import yaml
from debian_monitoring import CONFIGS, ROOT, run
from promql_names import names, unknown
from rule_files import CASES, RULES, RUNBOOKS, alerts, recorded, runbook_queries

from serve_app.config import AgentSettings, KnowledgeSettings

if TYPE_CHECKING:
    from pathlib import Path

ALERTS = alerts()


def test_an_alert_has_a_severity_the_measured_value_and_a_runbook() -> None:
    valueless = {"ServeAppTargetDown", "ServeAppMetricsAbsent", "ServeAppBreakerOpen"}
    for name, alert in ALERTS.items():
        assert alert["labels"]["severity"] in {"critical", "warning"}, name
        assert set(alert["annotations"]) == {"summary", "description", "runbook"}, name
        assert "$value" in alert["annotations"]["description"] or name in valueless, name


def test_a_runbook_says_what_is_wrong_what_to_look_at_and_what_to_do() -> None:
    sections = re.split(r"^## ", RUNBOOKS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    by_anchor = {each.splitlines()[0].strip().lower(): each for each in sections}
    for name, alert in ALERTS.items():
        path, _, anchor = alert["annotations"]["runbook"].partition("#")
        assert (ROOT / path, anchor) == (RUNBOOKS, name.lower())
        places = [by_anchor[anchor].find(part) for part in ("**Wrong.**", "**Look.**", "**Do.**")]
        assert -1 < places[0] < places[1] < places[2], name


def test_the_runbooks_have_a_section_for_each_alert_and_for_nothing_else() -> None:
    found = re.findall(r"^## (ServeApp\w+)$", RUNBOOKS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert found == list(ALERTS)


def test_each_alert_has_a_firing_and_a_quiet_case() -> None:
    firing, quiet = set(), set()
    for path in CASES:
        for case in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for expected in case["alert_rule_test"]:
                (firing if expected["exp_alerts"] else quiet).add((expected["alertname"], path.stem))
    assert {name for name, _ in firing} == set(ALERTS)
    assert {name for name, file in quiet if file == "silence"} == set(ALERTS), "a day without traffic is quiet"
    assert {name for name, file in quiet if file != "silence"} == set(ALERTS), "each is quiet just below its threshold"


def test_the_check_of_names_finds_each_metric_that_an_expression_reads() -> None:
    """Without it, the tests of rules and dashboards below could pass because they see no names."""
    expressions = {
        'sum by (le, a) (rate(x_bucket{le="y", b=~"z.*"}[5m])) > 1e3': {"x_bucket"},
        "a:b:rate5m * 300 >= 10 and on (application) c unless c offset 15m": {"a:b:rate5m", "c"},
        'label_replace(rate(x[1h]), "dependency", "model:$1", "model", "(.*)") or 0 * vector(1)': {"x"},
        "max(max_over_time(x[30d:5m])) - 2 / on (a) group_left () (y offset 1d)": {"x", "y"},
    }
    assert {each: names(each) for each in expressions} == expressions
    read = "ray_serve_app_turns_total + ray_serve_app_turns + ray_serve_deployment_status + ray_serve_deployment_mood"
    assert unknown([read], set()) == {"ray_serve_app_turns", "ray_serve_deployment_mood"}


def test_the_rules_and_the_runbooks_read_only_metrics_that_exist() -> None:
    rules = {**ALERTS, **recorded()}
    read = [*(rule["expr"] for rule in rules.values()), *runbook_queries()]
    assert unknown(read, set(recorded())) == set()


def test_a_recorded_rule_reads_only_rules_before_it() -> None:
    known: set[str] = set()
    for name, rule in recorded().items():
        assert {each for each in names(rule["expr"]) if ":" in each} <= known
        known.add(name)


def test_the_thresholds_follow_the_settings_of_the_service() -> None:
    assert ALERTS["ServeAppNearCapacity"]["expr"].endswith(f"> {AgentSettings().max_runs * 8 // 10}")
    assert ALERTS["ServeAppTurnStuck"]["expr"].endswith(f"> {AgentSettings().turn_timeout_s * 1.5:.0f}")
    assert f"> {KnowledgeSettings().timeout_s}" in ALERTS["ServeAppRetrievalSlow"]["expr"]


@pytest.mark.long
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_promtool_sees_the_alerts_fire_and_keep_quiet(path: Path) -> None:
    ran = run("promtool", "test", "rules", path)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.long
def test_promtool_finds_nothing_wrong_with_the_configuration() -> None:
    configuration = run("promtool", "check", "config", CONFIGS / "prometheus" / "prometheus.yml")
    rules = run("promtool", "check", "rules", "--lint=all", *sorted(RULES.glob("*.yml")))
    for ran in (configuration, rules):
        assert ran.returncode == 0, ran.stdout + ran.stderr
