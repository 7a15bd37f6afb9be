"""The embedded stores keep their data, ports and folder through every kind of death."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest
from pymilvus import MilvusClient
from redis import Redis

from serve_app.deployments import embedded_stores
from serve_app.deployments.child_process import ChildProcess, Program
from serve_app.deployments.embedded_stores import LOOPBACK, EmbeddedStores, choose_ports, is_port_free, lock_data_folder
from serve_app.errors import InvalidConfiguration, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BACK_S = 15.0
"""What a store may take to be back; alone on two cores Redis takes 0.2 s and Milvus Lite 0.9 s."""


@contextmanager
def running(data_dir: Path, *names: str) -> Iterator[EmbeddedStores]:
    stores = EmbeddedStores(data_dir, choose_ports(data_dir), redis="redis" in names, milvus="milvus" in names)
    try:
        stores.start()
        yield stores
    finally:
        stores.stop()


@contextmanager
def listening(port: int) -> Iterator[None]:
    with socket.create_server((LOOPBACK, port)):
        yield


def until(condition: Callable[[], object], within_s: float = BACK_S) -> None:
    give_up = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up, f"not within {within_s} s"
        time.sleep(0.02)


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def kill(stores: EmbeddedStores, name: str) -> int:
    """SIGKILL a store and wait until it is back; its former pid."""
    former = stores.pids()[name]
    assert former is not None
    os.kill(former, signal.SIGKILL)
    until(lambda: stores.pids()[name] not in (None, former))
    until(lambda: all(check.ok for check in stores.checks()))
    return former


def redis_of(data_dir: Path) -> Redis:
    return Redis(port=choose_ports(data_dir).redis, decode_responses=True)


def count(data_dir: Path) -> int:
    client = MilvusClient(f"http://{LOOPBACK}:{choose_ports(data_dir).milvus}", timeout=5)
    try:
        client.load_collection("facts")
        return int(client.query("facts", "", output_fields=["count(*)"])[0]["count(*)"])
    finally:
        client.close()


def found(data_dir: Path) -> int:
    """How many rows a search finds, without a load before it."""
    client = MilvusClient(f"http://{LOOPBACK}:{choose_ports(data_dir).milvus}", timeout=5)
    try:
        return len(client.search("facts", [[1, 1, 2, 3]], limit=100)[0])
    finally:
        client.close()


def insert(data_dir: Path, rows: int) -> None:
    client = MilvusClient(f"http://{LOOPBACK}:{choose_ports(data_dir).milvus}", timeout=5)
    client.create_collection("facts", dimension=4)
    client.insert("facts", [{"id": row, "vector": [row, 1, 2, 3]} for row in range(rows)])
    client.close()


HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7


def _frame(kind: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2 (RFC 9113, 4.1) without flags, of the connection."""
    return len(payload).to_bytes(3) + bytes([kind, 0]) + bytes(4) + payload


def _read_frame(client: socket.socket) -> tuple[int, bytes]:
    """The kind and the payload of the next frame."""
    head = _read(client, 9)
    return head[3], _read(client, int.from_bytes(head[:3]))


def _read(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        received = client.recv(size - len(data))
        assert received, "the server has closed the connection"
        data += received
    return data


def test_a_killed_redis_is_back_on_its_port_with_every_write(tmp_path: Path) -> None:
    with running(tmp_path, "redis") as stores, redis_of(tmp_path) as client:
        for number in range(200):
            client.set(f"key-{number}", number)
        kill(stores, "redis")
        assert client.dbsize() == 200


def test_redis_shortens_the_file_that_it_loads_after_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "redis" / "appendonly.aof"
    with running(tmp_path, "redis"), redis_of(tmp_path) as client:
        for _ in range(20):
            client.set("session", "x" * 1_000_000)
        until(lambda: file.stat().st_size < 8_000_000)


def test_milvus_answers_a_client_that_pings_an_idle_connection_often(tmp_path: Path) -> None:
    with running(tmp_path, "milvus"), socket.create_connection((LOOPBACK, choose_ports(tmp_path).milvus)) as client:
        client.settimeout(BACK_S)
        client.sendall(HTTP2_PREFACE + _frame(SETTINGS))
        kinds = [_read_frame(client)[0]]
        for number in range(6):  # gRPC's servers take two for granted
            client.sendall(_frame(PING, number.to_bytes(8)))
            while (received := _read_frame(client)) != (PING, number.to_bytes(8)):
                kinds.append(received[0])
        assert GOAWAY not in kinds


def test_a_killed_milvus_is_back_with_every_row_of_each_collection_that_it_can_open(tmp_path: Path) -> None:
    with running(tmp_path, "milvus") as stores:
        insert(tmp_path, rows=50)
        broken = tmp_path / "milvus" / "collections" / "broken"
        broken.mkdir()
        (broken / "schema.json").write_text("{")
        kill(stores, "milvus")
        assert found(tmp_path) == 50, "a collection is loaded before the first call"
        assert count(tmp_path) == 50
    assert "collection_not_loaded: broken" in (tmp_path / "milvus.log").read_text()


def test_a_store_that_dies_again_and_again_comes_back_each_time(tmp_path: Path) -> None:
    with running(tmp_path, "redis") as stores:
        assert len({kill(stores, "redis") for _ in range(3)}) == 3
        assert stores.supervised


def test_milvus_misses_no_row_while_it_flushes(tmp_path: Path) -> None:
    rows, batches = 200, 20
    with running(tmp_path, "milvus"):
        url = f"http://{LOOPBACK}:{choose_ports(tmp_path).milvus}"
        writer, reader = MilvusClient(url, timeout=10), MilvusClient(url, timeout=10)
        writer.create_collection("flushed", dimension=2)
        written, counts, done = 0, [], threading.Event()

        def count_rows() -> None:
            while not done.is_set():
                least = written
                [row] = reader.query("flushed", "", output_fields=["count(*)"])
                counts.append((least, int(row["count(*)"])))

        reading = threading.Thread(target=count_rows)
        reading.start()
        for batch in range(batches):
            vectors = [{"id": batch * rows + at, "vector": [1.0, at / rows]} for at in range(rows)]
            writer.insert("flushed", vectors)
            written += rows
            writer.flush("flushed")
        done.set()
        reading.join()
        writer.close()
        reader.close()
    assert len(counts) > batches
    assert [(least, count) for least, count in counts if count < least] == []


def test_the_stores_ignore_ctrl_c_and_save_their_data_when_they_are_stopped(tmp_path: Path) -> None:
    with running(tmp_path, "redis", "milvus") as stores:
        ports, pids = choose_ports(tmp_path), list(stores.pids().values())
        for pid in pids:
            assert pid is not None
            os.kill(pid, signal.SIGINT)
        insert(tmp_path, rows=5)
        assert list(stores.pids().values()) == pids
        with redis_of(tmp_path) as client:
            client.set("kept", "yes")
    assert all(pid is not None and ended(pid) for pid in pids)
    assert "bye bye" in (tmp_path / "redis.log").read_text()
    assert (tmp_path / "milvus.log").read_text().endswith("Milvus Lite has closed its files\n")
    with running(tmp_path, "redis", "milvus"), redis_of(tmp_path) as client:
        assert choose_ports(tmp_path) == ports
        assert not is_port_free(ports.redis)
        assert not is_port_free(ports.milvus), "gRPC listens on the same address in its IPv6 form"
        assert client.get("kept") == "yes"
        assert count(tmp_path) == 5


def test_redis_keeps_an_append_only_file_and_listens_on_loopback_only(tmp_path: Path) -> None:
    with running(tmp_path, "redis") as stores, redis_of(tmp_path) as client:
        options = client.config_get("*")
        expected = {"appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction"}
        assert {name: options[name] for name in expected} == expected
        pid = stores.pids()["redis"]
        assert {each.laddr.ip for each in psutil.Process(pid).net_connections() if each.status == "LISTEN"} == {
            LOOPBACK
        }


def test_only_the_wanted_stores_run(tmp_path: Path) -> None:
    with running(tmp_path, "redis") as stores:
        assert list(stores.pids()) == ["redis"]
        assert [check.name for check in stores.checks()] == ["redis"]


def test_the_stores_die_with_a_killed_parent_and_its_successor_has_their_data(tmp_path: Path) -> None:
    source = """
import sys, time
from pathlib import Path
from serve_app.deployments.embedded_stores import EmbeddedStores, choose_ports

folder = Path(sys.argv[1])
stores = EmbeddedStores(folder, choose_ports(folder), redis=True, milvus=True)
stores.start()
print(*stores.pids().values(), flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", source, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert {os.getpgid(pid) for pid in pids} == {os.getpgid(parent.pid)}
        with redis_of(tmp_path) as client:
            client.set("kept", "yes")
        parent.kill()
    with running(tmp_path, "redis", "milvus"), redis_of(tmp_path) as client:
        assert all(ended(pid) for pid in pids), "two servers would write to one folder"
        assert client.get("kept") == "yes"


def test_the_stores_outlive_the_thread_that_started_them(tmp_path: Path) -> None:
    stores = EmbeddedStores(tmp_path, choose_ports(tmp_path), redis=True, milvus=False)
    try:
        starter = threading.Thread(target=stores.start)
        starter.start()
        starter.join()
        pid = stores.pids()["redis"]
        time.sleep(0.3)
        assert pid is not None
        assert not ended(pid)
        assert stores.pids()["redis"] == pid
    finally:
        stores.stop()


def test_a_store_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_stores, "STOP_S", 0.3)
    with running(tmp_path, "redis") as stores:
        pid = stores.pids()["redis"]
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    assert ended(pid)


def test_a_store_is_not_ok_while_it_does_not_answer(tmp_path: Path) -> None:
    with running(tmp_path, "redis") as stores:
        pid = stores.pids()["redis"]
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        [check] = stores.checks()
        os.kill(pid, signal.SIGCONT)
        assert not check.ok
        assert "does not answer" in str(check.reason)
        assert stores.supervised, "a store that is away is no reason to replace the one who restarts it"


def test_a_data_folder_has_one_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_stores, "HANDOVER_S", 0.2)
    with running(tmp_path, "redis") as first:
        pid = first.pids()["redis"]
        with pytest.raises(InvalidConfiguration) as caught, running(tmp_path, "redis"):
            pass
        [problem] = caught.value.problems
        assert problem.where == str(tmp_path)
        assert str(os.getpid()) in problem.what
        assert "SERVE_APP_DATA_DIR" in problem.fix
        assert first.pids()["redis"] == pid


def test_two_folders_are_served_side_by_side(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    with running(one, "redis"), running(other, "redis"), redis_of(one) as client, redis_of(other) as neighbour:
        client.set("mine", "1")
        assert neighbour.get("mine") is None


def test_a_folder_stays_held_until_the_last_child_of_its_owner_is_gone(tmp_path: Path) -> None:
    owner = lock_data_folder(tmp_path, timeout_s=0)
    child = ChildProcess(_program(tmp_path, "exec sleep 60"), owner.fileno())
    child.start()
    until(lambda: child.pid)
    owner.close()
    with pytest.raises(InvalidConfiguration):
        lock_data_folder(tmp_path, timeout_s=0.2)
    child.stop(timeout_s=2)
    lock_data_folder(tmp_path, timeout_s=0).close()


def test_a_store_that_does_not_start_tells_the_last_line_of_its_log(tmp_path: Path) -> None:
    with lock_data_folder(tmp_path, timeout_s=0) as lock:
        child = ChildProcess(_program(tmp_path, "echo the file is broken >&2; exit 1"), lock.fileno())
        child.start()
        with pytest.raises(StoreUnavailable, match="the file is broken"):
            child.wait_until_ready(timeout_s=1)
        child.stop(timeout_s=2)


def test_a_port_is_not_shared_with_a_stranger(tmp_path: Path) -> None:
    program = _program(tmp_path, "exec sleep 60")
    with lock_data_folder(tmp_path, timeout_s=0) as lock:
        child = ChildProcess(program, lock.fileno())
        with listening(program.port):
            child.start()
            time.sleep(0.5)
            assert child.pid is None
            assert child.supervised
        until(lambda: child.pid)
        child.stop(timeout_s=2)


def _program(data_dir: Path, script: str) -> Program:
    return Program("shell", ("/bin/sh", "-c", script), choose_ports(data_dir).redis, data_dir / "log", _never)


def _never(_port: int) -> bool:
    return False
