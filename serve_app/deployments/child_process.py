"""A supervised child process: restarted when it dies, and never outliving its parent."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve_app.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger(__name__)

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
STEADY_S = 10.0
"""A child that lived this long did not fail at its start: the next delay is the first one again."""

LOOPBACK = "127.0.0.1"
POLL_S = 0.05
MAX_LOG_BYTES = 10 * 1024 * 1024

# Runs in the child before the program, in place of `preexec_fn`, whose Python code could deadlock in a fork of a
# process with threads (gRPC's among them). SIGINT stays blocked for the program: Ctrl-C goes to the whole process
# group, and a store ends after those who use it, by SIGTERM. The last check is for a parent that died before `prctl`.
LAUNCH = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGINT})
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that listens on a port, its log, and the check that it serves."""

    name: str
    command: tuple[str, ...]
    port: int
    log: Path
    is_ready: Callable[[int], bool]


class ChildProcess:
    """One supervised process of `program`, in its parent's process group.

    The file descriptor `lock` stays open in it, so that an flock that the parent took on it is held until the last
    child is gone, too.
    """

    def __init__(self, program: Program, lock: int) -> None:
        self.program = program
        self._lock_fd = lock
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        # The kernel binds PR_SET_PDEATHSIG to the thread that forked, so the thread that forks is the one that waits.
        self._supervisor = threading.Thread(target=self._supervise, name=f"{program.name}-supervisor", daemon=True)

    def start(self) -> None:
        """Start the supervision, which starts the process, without waiting for either."""
        self._supervisor.start()

    @property
    def supervised(self) -> bool:
        """Whether the supervision runs."""
        return self._supervisor.is_alive()

    @property
    def pid(self) -> int | None:
        """The id of the process; None while it is restarted."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def is_ready(self) -> bool:
        """Return whether the process lives and serves now."""
        return self.pid is not None and self.program.is_ready(self.program.port)

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until the program serves.

        Raises:
            StoreUnavailable: it does not serve within `timeout_s`; the message ends with the last line of its log.
        """
        give_up = time.monotonic() + timeout_s
        while not self.is_ready():
            if time.monotonic() > give_up:
                raise StoreUnavailable(
                    f"{self.program.name} did not start within {timeout_s:g} s: {self._last_log_line()}"
                )
            time.sleep(POLL_S)

    def stop(self, timeout_s: float) -> None:
        """End the process by SIGTERM, which lets it save, and after `timeout_s` by SIGKILL."""
        with self._starting:
            self._stopping.set()
            if self._process is not None:
                self._process.terminate()
        self._supervisor.join(timeout_s)
        if self._supervisor.is_alive() and self._process is not None:
            logger.warning("store_killed", extra={"store": self.program.name, "timeout_s": timeout_s})
            self._process.kill()
            self._supervisor.join(timeout_s)

    def _supervise(self) -> None:
        delay_s = FIRST_DELAY_S
        while not self._stopping.is_set():
            began = time.monotonic()
            self._run()
            steady = time.monotonic() - began >= STEADY_S
            delay_s = FIRST_DELAY_S if steady else min(2 * delay_s, LONGEST_DELAY_S)
            self._stopping.wait(delay_s)

    def _run(self) -> None:
        """Start the process once, and wait for its end."""
        try:
            with self._starting:
                if self._stopping.is_set():
                    return
                self._process = process = self._launch()
        except OSError as error:
            logger.error("store_not_started", extra={"store": self.program.name, "error": str(error)})  # noqa: TRY400
            return
        code = process.wait()
        if not self._stopping.is_set():
            fields = {"store": self.program.name, "code": code, "log": str(self.program.log)}
            logger.warning("store_restarted", extra=fields)

    def _launch(self) -> subprocess.Popen[bytes]:
        # gRPC's servers share ports (SO_REUSEPORT): without this check two of them would take turns in answering.
        if not is_port_free(self.program.port):
            raise OSError(f"port {self.program.port} is taken by another process")
        log = self.program.log
        with log.open("wb" if log.exists() and log.stat().st_size > MAX_LOG_BYTES else "ab") as output:
            return subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-I", "-S", "-c", LAUNCH, str(os.getpid()), *self.program.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(self._lock_fd,),
            )

    def _last_log_line(self) -> str:
        lines = self.program.log.read_text(errors="replace").split("\n") if self.program.log.exists() else []
        return next((line for line in reversed(lines) if line.strip()), "its log is empty")


def is_port_free(port: int) -> bool:
    """Return whether no server listens on `port` of loopback.

    Connections of a server that just died do not count.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
