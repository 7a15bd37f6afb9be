"""`serve run` starts from nothing, stores conversations and documents, and leaves no process behind."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from running_service import ENVIRONMENT, START_S
from serve_run import BIN, serve_run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

MAX_PSS_BYTES = 2.6e9


def test_ctrl_c_leaves_no_process_and_the_next_start_has_what_was_said_and_sent(tmp_path: Path) -> None:
    document = {"source": "robot.md", "text": "# Robot\n\nThe robot returns to its dock at ten percent of charge."}
    with serve_run(tmp_path) as run:
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
    with serve_run(tmp_path) as run:
        run.service.wait_until_ready(START_S)
        assert "OD-20240502" in run.service.ask("Which order did I ask about?", "kept")["result"]
        assert "ten percent" in run.service.ask("When does the robot return to its dock?", "new")["result"]
        run.interrupt()
        run.wait_until_nothing_is_left(60)


def test_serve_shutdown_leaves_no_replica_and_no_store(tmp_path: Path) -> None:
    with serve_run(tmp_path) as run:
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
    with serve_run(tmp_path / "one") as one, serve_run(tmp_path / "two") as two:
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
