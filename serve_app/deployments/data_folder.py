"""The data folder of the embedded stores: its lock, and the ports recorded in it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, TextIO
from zlib import crc32

from serve_app.errors import InvalidConfiguration, Problem

if TYPE_CHECKING:
    from pathlib import Path

PORTS = range(20_000, 30_000)
"""Below Linux's ephemeral ports (32768-60999), above those of Ray's workers (10002-19999)."""

POLL_S = 0.05

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class StorePorts:
    """Where the embedded stores listen on loopback."""

    redis: int
    milvus: int


def choose_ports(data_dir: Path) -> StorePorts:
    """Return the ports of the stores in `data_dir`, and record new ones.

    The recorded ports stay, unless another program has taken one of them.

    Raises:
        InvalidConfiguration: the folder cannot be written.
    """
    with _lock_file(data_dir) as file:
        recorded = _read_ports(data_dir)
        held = not _try_lock(file, fcntl.LOCK_SH)  # the stores run, and listen on the recorded ports
    if recorded and (held or (is_port_free(recorded.redis) and is_port_free(recorded.milvus))):
        return recorded
    # Two folders begin their search at two places, so that they do not meet even when both search at once.
    first = crc32(bytes(data_dir))
    candidates = (PORTS[(first + step) % len(PORTS)] for step in range(len(PORTS)))
    redis, milvus = islice(filter(is_port_free, candidates), 2)
    return _write_ports(data_dir, StorePorts(redis, milvus))


def lock_data_folder(data_dir: Path, timeout_s: float) -> TextIO:
    """Lock the folder for this process, and return the lock file.

    The lock is held until the file is closed, here and in the children that inherited it.

    Raises:
        InvalidConfiguration: the folder cannot be written, or another process holds it for longer than `timeout_s`.
    """
    file = _lock_file(data_dir)
    give_up = time.monotonic() + timeout_s
    while not _try_lock(file, fcntl.LOCK_EX):
        if time.monotonic() > give_up:
            with file:
                raise InvalidConfiguration((_held_problem(data_dir, file),))
        time.sleep(POLL_S)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _lock_file(data_dir: Path) -> TextIO:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)  # the stores ask for no password
        return (data_dir / "lock").open("a+")
    except OSError as error:
        fix = "Make the folder writable, or name another one with SERVE_APP_DATA_DIR"
        problem = Problem(str(data_dir), f"the data folder cannot be used ({error.strerror})", fix)
        raise InvalidConfiguration((problem,)) from None


def _try_lock(file: TextIO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _held_problem(data_dir: Path, file: TextIO) -> Problem:
    file.seek(0)
    holder = file.read() or "unknown"
    fix = "Stop that service (Ctrl-C, or `serve shutdown`), or name another folder with SERVE_APP_DATA_DIR"
    return Problem(str(data_dir), f"the data folder is held by another service, process {holder}", fix)


def _read_ports(data_dir: Path) -> StorePorts | None:
    try:
        return StorePorts(**json.loads((data_dir / "ports.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None  # missing or unreadable: new ports will do


def _write_ports(data_dir: Path, ports: StorePorts) -> StorePorts:
    draft = data_dir / "ports.json.new"
    draft.write_text(json.dumps(asdict(ports)))
    draft.replace(data_dir / "ports.json")
    return ports


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
