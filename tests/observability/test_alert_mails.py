"""An alert is mailed once with its runbook, and its end is mailed too."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
import pytest
from debian_monitoring import CONFIGS, alertmanager, hurried, program, prometheus, wait_until
from rule_files import RULES
from sample_metrics_page import serve_page
from smtp_sink import smtp_sink

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.long

START = CONFIGS / "alertmanager" / "start.sh"
SETTINGS = {
    "SERVE_APP_MAIL_FROM": "Alerts <alerts@example.com>",
    "SERVE_APP_MAIL_TO": "one@example.com, two@example.com",
    "SERVE_APP_SMTP_TLS": "false",
}
RUNBOOK = "configs/prometheus/runbooks.md#serveappturnsslow"


@dataclass(slots=True)
class Turns:
    """A page on which ten turns end each second, below 1 s or between 2 and 5 s."""

    slow: bool = True
    counted: dict[str, float] = field(default_factory=lambda: {"1.0": 0, "2.0": 0, "5.0": 0, "+Inf": 0})
    at: float = 0

    def page(self, seconds: float) -> str:
        more, self.at = 10 * (seconds - self.at), seconds
        for le in ("5.0", "+Inf") if self.slow else self.counted:
            self.counted[le] += more
        of = 'application="serve_app",deployment="Agent",replica="a1",status="success",variant="stable"'
        buckets = [f'ray_serve_app_turn_seconds_bucket{{{of},le="{le}"}} {n}' for le, n in self.counted.items()]
        turns = f"ray_serve_app_turns_total{{{of}}} {self.counted['+Inf']}"
        alive = 'ray_serve_app_process_resident_bytes{application="serve_app"} 1'
        return "\n".join([*buckets, turns, alive]) + "\n"


def impatient(folder: Path) -> Path:
    """Our configuration, with a second for half a minute."""
    shutil.copytree(START.parent, folder)
    path = folder / "alertmanager.yml"
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"group_wait: \S+", "group_wait: 1s", text)
    path.write_text(re.sub(r"group_interval: \S+", "group_interval: 2s", text), encoding="utf-8")
    return folder


def test_slow_turns_send_a_mail_that_names_the_runbook_and_their_end_another(tmp_path: Path) -> None:
    turns = Turns()
    hurried(RULES, tmp_path / "rules")
    with smtp_sink() as sink, serve_page(turns.page) as target:
        settings = {**SETTINGS, "SERVE_APP_SMTP_HOST": sink.address}
        with alertmanager(tmp_path / "alertmanager", settings, impatient(tmp_path / "configured")) as manager:  # noqa: SIM117 - one line each
            with prometheus(tmp_path, target, tmp_path / "rules", manager) as watching:
                wait_until(lambda: watching.alerts().get("ServeAppTurnsSlow") == "firing", 60, "slow turns are noticed")
                wait_until(lambda: bool(sink.about("[FIRING 1] warning: p95 turn latency", RUNBOOK)), 20, "a mail")
                turns.slow = False
                resolved = "[RESOLVED] warning: p95 turn latency"
                wait_until(lambda: bool(sink.about(resolved, RUNBOOK)), 90, "a mail of the end")
    assert sorted(set(sink.receivers)) == ["one@example.com", "two@example.com"]
    (first,) = sink.about("[FIRING 1]")
    assert "ServeAppTurnsSlow: p95 turn latency is above 2 s" in first
    assert re.search(r"p95 of serve_app \(stable\) is [2-5]\.?\d*s over 5 minutes", first)


INHIBITED = [
    ({"alertname": "ServeAppTargetDown", "job": "serve-app"}, {"alertname": "ServeAppMetricsAbsent"}),
    ({"alertname": "ServeAppTargetDown", "job": "serve-app"}, {"alertname": "ServeAppTurnsFail", "application": "a"}),
    ({"alertname": "ServeAppMetricsAbsent"}, {"alertname": "ServeAppTurnsSlow", "application": "a"}),
    (
        {"alertname": "ServeAppBudgetBurnsFast", "application": "a"},
        {"alertname": "ServeAppTurnsFail", "application": "a"},
    ),
    (
        {"alertname": "ServeAppDependencyFails", "application": "a", "dependency": "milvus"},
        {"alertname": "ServeAppBreakerOpen", "application": "a", "dependency": "milvus"},
    ),
]
SENT = [
    ({"alertname": "ServeAppTargetDown", "job": "ray"}, {"alertname": "ServeAppTurnsFail", "application": "a"}),
    ({"alertname": "ServeAppMetricsAbsent"}, {"alertname": "ServeAppTargetDown", "job": "serve-app"}),
    (
        {"alertname": "ServeAppBudgetBurnsFast", "application": "a"},
        {"alertname": "ServeAppTurnsFail", "application": "b"},
    ),
    (
        {"alertname": "ServeAppBudgetBurnsFast", "application": "a"},
        {"alertname": "ServeAppDependencyFails", "application": "a", "dependency": "milvus"},
    ),
    (
        {"alertname": "ServeAppDependencyFails", "application": "a", "dependency": "redis"},
        {"alertname": "ServeAppBreakerOpen", "application": "a", "dependency": "milvus"},
    ),
]


def test_an_alert_is_held_back_by_a_louder_one_on_the_same_thing_and_by_nothing_else(tmp_path: Path) -> None:
    with smtp_sink() as sink:
        settings = {**SETTINGS, "SERVE_APP_SMTP_HOST": sink.address}
        with alertmanager(tmp_path / "alertmanager", settings) as manager:
            for louder, other in INHIBITED:
                assert _held_back(manager, louder, other), f"{other} in spite of {louder}"
            for louder, other in SENT:
                assert not _held_back(manager, louder, other), f"{other} held back by {louder}"


def _held_back(manager: str, louder: dict[str, str], other: dict[str, str]) -> bool:
    """Whether the mail of the second alert is held back while both fire; afterwards both end."""
    url = f"http://{manager}/api/v2/alerts"
    with httpx.Client(trust_env=False) as client:
        client.post(url, json=[{"labels": louder}, {"labels": other}]).raise_for_status()

        def inhibitions() -> dict[str, list[str]]:
            return {each["labels"]["alertname"]: each["status"]["inhibitedBy"] for each in client.get(url).json()}

        wait_until(lambda: {louder["alertname"], other["alertname"]} <= set(inhibitions()), 5, "both are there")
        held_back = bool(inhibitions()[other["alertname"]])
        over = {"startsAt": "2020-01-01T00:00:00Z", "endsAt": "2020-01-01T00:00:01Z"}
        client.post(url, json=[{"labels": louder, **over}, {"labels": other, **over}]).raise_for_status()
        wait_until(lambda: not inhibitions(), 5, "both are over")
    return held_back


def test_amtool_finds_nothing_wrong_with_what_the_environment_makes_of_the_configuration(tmp_path: Path) -> None:
    program("amtool")
    check = tmp_path / "check.sh"
    check.write_text('amtool check-config "${1#--config.file=}" && cat "${1#--config.file=}" && cat "$2"\n')
    settings = {
        **SETTINGS,
        "SERVE_APP_SMTP_HOST": "mail.example.com:587",
        "SERVE_APP_MAIL_FROM": 'Tom\'s "&" ${HOME} $1 \\1 <a@example.com>',
        "SERVE_APP_SMTP_USER": "true story",
        "SERVE_APP_SMTP_PASSWORD": "a secret",
    }
    ran = subprocess.run(
        ["sh", START, "sh", "-c", f'sh {check} "$1" "$(dirname "${{1#--config.file=}}")/password"', "sh"],
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), **settings},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "smtp_from: 'Tom''s \"&\" ${HOME} $1 \\1 <a@example.com>'" in ran.stdout
    assert "smtp_auth_username: 'true story'" in ran.stdout
    assert ran.stdout.endswith("a secret"), "the password stands in a file of its own"
    assert ran.stdout.count("a secret") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["check.sh"], "and goes with the process"


@pytest.mark.parametrize("missing", ["SERVE_APP_SMTP_HOST", "SERVE_APP_MAIL_FROM", "SERVE_APP_MAIL_TO"])
def test_alertmanager_does_not_start_without_its_mail_settings(missing: str) -> None:
    settings = {**SETTINGS, "SERVE_APP_SMTP_HOST": "mail.example.com:587"}
    del settings[missing]
    ran = subprocess.run(
        ["sh", START, "echo", "started"],
        env={"PATH": "/usr/bin:/bin", **settings},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode != 0
    assert missing in ran.stderr
    assert "started" not in ran.stdout
