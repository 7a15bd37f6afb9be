"""Starts a Ray of its own for a test."""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIES = 3
LOG_FILES = ("raylet.err", "raylet.out", "gcs_server.out", "dashboard_agent.log")


@contextlib.contextmanager
def own_ray(**options: Any) -> Iterator[None]:
    """A Ray of two cores without a dashboard; it and Serve are shut down after the block."""
    import ray
    from ray import serve

    _begin(options)
    try:
        yield
    finally:
        serve.shutdown()
        ray.shutdown()


def _begin(options: dict[str, Any]) -> None:
    """Ray gives its own node half a minute to come up; on a machine that is busy with others that is too little once in
    a while, and nothing has been tested yet that a second try could hide."""
    import ray

    for left in reversed(range(TRIES)):
        # Ray's handles of processes do not know that `_end` has ended these, and say so when they go
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):
            before = {process.pid for process in psutil.Process().children()}
            try:
                ray.init(address="local", num_cpus=2, include_dashboard=False, **options)
            except Exception as error:
                begun = [process for process in psutil.Process().children() if process.pid not in before]
                _print_logs(error, begun)
                ray.shutdown()
                _end(begun)
                if not left:
                    raise
            else:
                return


def _print_logs(error: Exception, begun: list[psutil.Process]) -> None:
    print(f"Ray did not begin: {error}", *(f"{each.name()}: {each.status()}" for each in begun), file=sys.stderr)
    for name in LOG_FILES:
        for log in Path("/tmp/ray/session_latest/logs").glob(name):
            lines = log.read_text(errors="replace").splitlines()[-15:]
            print(f"--- {name}", *lines, sep="\n", file=sys.stderr)


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=10)
