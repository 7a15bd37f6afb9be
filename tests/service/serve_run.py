"""Runs `serve run` in a terminal of its own, and finds what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import yaml
from listening import free_port
from running_service import ENVIRONMENT, ROOT, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN = Path(sys.executable).parent
TRIES = 3
"""Ray gives its node half a minute to start, which is too little once in a while on a busy machine."""


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
def serve_run(folder: Path, host: str = "127.0.0.1") -> Iterator[Run]:
    port = free_port()
    deploy = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    deploy["http_options"] |= {"host": host, "port": port}
    (folder / "serve_config.yaml").write_text(yaml.safe_dump(deploy))
    service = Service(url=f"http://127.0.0.1:{port}", data_dir=folder / "data")
    log = folder / f"log-{port}"
    for _ in range(TRIES):
        process = _start(folder, service, log)
        if _has_ray(process, log):
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    run = Run(service, process, log)
    try:
        yield run
    finally:
        for each in run.running():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                each.kill()
        process.wait(30)


def _start(folder: Path, service: Service, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [BIN / "serve", "run", folder / "serve_config.yaml"],
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT, "SERVE_APP_DATA_DIR": str(service.data_dir)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _has_ray(process: subprocess.Popen[bytes], log: Path) -> bool:
    """Wait for Ray's start; False where its node was late."""
    while process.poll() is None and "Started a local Ray instance" not in log.read_text():
        time.sleep(0.2)
    return "timed out during startup" not in log.read_text()
