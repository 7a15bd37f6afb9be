"""Does `serve run` start from nothing, keep what it was told, and leave nothing behind?"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
import yaml
from running_service import ENVIRONMENT, ROOT, START_S, Service, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

BIN = Path(sys.executable).parent
MAX_PSS_BYTES = 2.6e9


@dataclass
class Run:
    """One `serve run` in a terminal of its own."""

    service: Service
    process: subprocess.Popen[bytes]
    log: Path

    def __post_init__(self) -> None:
        self._known: set[psutil.Process] = set()

    def interrupt(self) -> None:
        """Ctrl-C: the terminal sends it to the whole process group."""
        self.running()
        os.killpg(self.process.pid, signal.SIGINT)

    def running(self) -> list[psutil.Process]:
        """Every process that this run started and that still lives, whoever its parent is by now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.process.pid)
            self._known.update([root, *root.children(recursive=True)])
        return [each for each in self._known if _lives(each)]

    def wait_until_nothing_is_left(self, seconds: float, *words: str) -> None:
        """Until no process whose command line has one of `words` is left; any process without words."""
        give_up = time.monotonic() + seconds
        while left := [each for each in self.running() if not words or any(word in _line(each) for word in words)]:
            assert time.monotonic() < give_up, [_line(each)[:80] for each in left]
            time.sleep(0.2)


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):  # it may end between the two questions
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _line(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


@contextlib.contextmanager
def _serve_run(folder: Path, host: str = "127.0.0.1") -> Iterator[Run]:
    port = free_port()
    deploy = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    deploy["http_options"] |= {"host": host, "port": port}
    (folder / "serve_config.yaml").write_text(yaml.safe_dump(deploy))
    service = Service(url=f"http://127.0.0.1:{port}", data_dir=folder / "data")
    log = folder / f"log-{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [BIN / "serve", "run", folder / "serve_config.yaml"],
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT, "SERVE_APP_DATA_DIR": str(service.data_dir)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    run = Run(service, process, log)
    try:
        yield run
    finally:
        for each in run.running():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                each.kill()
        process.wait(30)


def test_ctrl_c_leaves_no_process_and_the_next_start_has_what_was_said_and_sent(tmp_path: Path) -> None:
    document = {"source": "robot.md", "text": "# Robot\n\nThe robot returns to its dock at ten percent of charge."}
    with _serve_run(tmp_path) as run:
        run.service.wait_until_ready(START_S)
        run.service.ask("Where is OD-20240502?", "kept")
        with run.service.client() as client:
            added = client.post("/knowledge/documents", json={"documents": [document]})
        assert added.json()["documents"][0]["status"] == "added"
        used = sum(each.memory_full_info().pss for each in run.running())
        print(f"\nsum of PSS of all {len(run.running())} processes: {used / 1e9:.2f} GB")
        assert used < MAX_PSS_BYTES
        run.interrupt()
        run.wait_until_nothing_is_left(60)
    with _serve_run(tmp_path) as run:
        run.service.wait_until_ready(START_S)
        assert "OD-20240502" in run.service.ask("Which order did I ask about?", "kept")["result"]
        assert "ten percent" in run.service.ask("When does the robot return to its dock?", "new")["result"]
        run.interrupt()
        run.wait_until_nothing_is_left(60)


def test_without_keys_nothing_is_served_on_an_address_that_others_reach(tmp_path: Path) -> None:
    with _serve_run(tmp_path, host="0.0.0.0") as run:
        said, give_up = "", time.monotonic() + START_S
        while "0.0.0.0 can be reached from other machines, and no keys are asked for" not in said:
            assert time.monotonic() < give_up, said
            time.sleep(0.5)
            said = run.log.read_text()
        with contextlib.suppress(httpx.HTTPError), run.service.client(5) as client:
            assert client.get("/healthz").status_code == 404
        run.interrupt()
        run.wait_until_nothing_is_left(60)


def test_serve_shutdown_leaves_no_replica_and_no_store(tmp_path: Path) -> None:
    with _serve_run(tmp_path) as run:
        run.service.wait_until_ready(START_S)
        dashboard = re.search(r"http://127\.0\.0\.1:\d+", run.log.read_text())
        assert dashboard, run.log.read_text()
        assert len(run.running()) > 10
        command = [BIN / "serve", "shutdown", "-y", "-a", dashboard.group()]
        subprocess.run(command, check=True, timeout=120, env={**os.environ, **ENVIRONMENT})
        run.wait_until_nothing_is_left(60, "ServeReplica", "redis-server", "milvus_server")
        run.interrupt()
        run.wait_until_nothing_is_left(60)


def test_two_services_run_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with _serve_run(tmp_path / "one") as one, _serve_run(tmp_path / "two") as two:
        one.service.wait_until_ready(2 * START_S)
        two.service.wait_until_ready(2 * START_S)
        one.service.ask("Where is OD-20240502?", "shared")
        two.service.ask("Where is OD-20240501?", "shared")
        assert "OD-20240502" in one.service.ask("Which order did I ask about?", "shared")["result"]
        assert "OD-20240501" in two.service.ask("Which order did I ask about?", "shared")["result"]
        for run in (one, two):
            run.interrupt()
        for run in (one, two):
            run.wait_until_nothing_is_left(60)
