"""Starts and queries Debian's Prometheus and Alertmanager."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from listening import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).parent.parent.parent
CONFIGS = ROOT / "configs"
INSTALL = "apt-get install prometheus prometheus-alertmanager"
START_S = 20


def program(name: str) -> str:
    """The program's path; where it is not installed, the test is skipped, or fails in CI."""
    found = shutil.which(name)
    if found is None:
        missing = f"{name} is missing: {INSTALL}"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one of their tools to its end."""
    command = [program(name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@dataclass(frozen=True, slots=True)
class Prometheus:
    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of the expression now."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, trust_env=False, timeout=30).json()
        assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
        found = answer["data"]["result"]
        if answer["data"]["resultType"] == "scalar":
            return [{"metric": {}, "value": found}]
        series: list[dict[str, Any]] = found
        return series

    def alerts(self) -> dict[str, str]:
        """The states of pending and firing alerts, by name."""
        answer = httpx.get(f"{self.url}/api/v1/alerts", trust_env=False, timeout=30).json()
        return {each["labels"]["alertname"]: each["state"] for each in answer["data"]["alerts"]}


def hurried(rules: Path, into: Path) -> None:
    """The same rules with two seconds for each minute that they wait: `for: 5m` is 10 s.

    A window of 5 minutes is one of 30 s, which has three samples of what Ray hands over every 10 s.
    """
    into.mkdir(exist_ok=True)
    for path in rules.glob("*.yml"):
        text = path.read_text(encoding="utf-8").replace("[5m]", "[30s]").replace(":rate5m * 300", ":rate5m * 30")
        text = re.sub(r"for: (\d+)m", lambda minutes: f"for: {2 * int(minutes[1])}s", text)
        (into / path.name).write_text(text.replace("interval: 1m", "interval: 1s"), encoding="utf-8")


@contextmanager
def prometheus(
    folder: Path, target: str, rules: Path, alertmanager: str | None = None, every_s: int = 1
) -> Iterator[Prometheus]:
    """A Prometheus that scrapes `target` (host:port) and has these rules."""
    document = yaml.safe_load((CONFIGS / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    every = f"{every_s}s"
    document["global"] = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": "1s"}
    document["rule_files"] = [f"{rules}/*.yml"]
    document["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    managers = [{"static_configs": [{"targets": [alertmanager]}]}] if alertmanager else []
    document["alerting"] = {"alertmanagers": managers}
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    port = free_port()
    options = (
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    with _running([program("prometheus"), *options], f"http://127.0.0.1:{port}"):
        yield Prometheus(f"http://127.0.0.1:{port}")


@contextmanager
def alertmanager(folder: Path, settings: Mapping[str, str], configured: Path | None = None) -> Iterator[str]:
    """Our Alertmanager, with these settings in the environment; its host:port."""
    script = (configured or CONFIGS / "alertmanager") / "start.sh"
    address = f"127.0.0.1:{free_port()}"
    options = (f"--storage.path={folder}", f"--web.listen-address={address}", "--cluster.listen-address=")
    command = ["sh", str(script), program("prometheus-alertmanager"), *options]
    with _running(command, f"http://{address}", {**os.environ, **settings}):
        yield address


@contextmanager
def _running(command: list[str], url: str, env: dict[str, str] | None = None) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env) as server:
        try:
            wait_until(lambda: _ready(url), START_S, f"{command[0]} answers")
            yield
        finally:
            server.terminate()
            _, output = server.communicate(timeout=20)
            if server.returncode not in {0, -15}:
                print(output.decode())


def _ready(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/-/ready", trust_env=False, timeout=1).status_code == 200
    return False


def wait_until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    give_up = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > give_up:
            pytest.fail(f"not within {seconds} s: {what}")
        time.sleep(0.1)
