"""Does each alert fire when it is meant to, say what to do, and keep quiet otherwise?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import yaml
from debian_monitoring import CONFIGS, ROOT, run
from promql import names, unknown
from rule_files import CASES, RULES, RUNBOOKS, alerts, recorded, runbook_queries

from serve_app.config import AgentSettings, KnowledgeSettings

if TYPE_CHECKING:
    from pathlib import Path

ALERTS = alerts()


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_urgent_it_is_what_was_measured_and_what_to_read(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    valueless = {"ServeAppTargetDown", "ServeAppMetricsAbsent", "ServeAppBreakerOpen"}
    assert "$value" in alert["annotations"]["description"] or name in valueless


@pytest.mark.parametrize("name", ALERTS)
def test_the_runbook_of_an_alert_says_what_it_means_how_to_look_and_what_to_do(name: str) -> None:
    path, _, anchor = ALERTS[name]["annotations"]["runbook"].partition("#")
    assert ROOT / path == RUNBOOKS
    sections = re.split(r"^## ", RUNBOOKS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    section = {each.splitlines()[0].strip().lower(): each for each in sections}[anchor]
    assert anchor == name.lower()
    for part in ("**Means.**", "**Look.**", "**Do.**"):
        assert part in section


def test_the_runbooks_have_a_section_for_each_alert_and_for_nothing_else() -> None:
    found = re.findall(r"^## (ServeApp\w+)$", RUNBOOKS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert found == list(ALERTS)


def test_each_alert_is_tried_firing_and_quiet() -> None:
    firing, quiet = set(), set()
    for path in CASES:
        for case in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for expected in case["alert_rule_test"]:
                (firing if expected["exp_alerts"] else quiet).add((expected["alertname"], path.stem))
    assert {name for name, _ in firing} == set(ALERTS)
    assert {name for name, file in quiet if file == "silence"} == set(ALERTS), "a day without traffic is quiet"
    assert {name for name, file in quiet if file != "silence"} == set(ALERTS), "each is quiet just below its threshold"


def test_the_rules_and_the_runbooks_read_only_metrics_that_exist() -> None:
    rules = {**ALERTS, **recorded()}
    read = [*(rule["expr"] for rule in rules.values()), *runbook_queries()]
    assert unknown(read, set(recorded())) == set()


def test_a_rule_reads_what_is_recorded_before_it() -> None:
    known: set[str] = set()
    for name, rule in recorded().items():
        assert {each for each in names(rule["expr"]) if ":" in each} <= known
        known.add(name)


def test_the_thresholds_follow_the_settings_of_the_service() -> None:
    deployed = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    agent = next(each for each in deployed["applications"][0]["deployments"] if each["name"] == "Agent")
    assert ALERTS["ServeAppNearCapacity"]["expr"].endswith(f"> {agent['max_ongoing_requests'] * 8 // 10}")
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
