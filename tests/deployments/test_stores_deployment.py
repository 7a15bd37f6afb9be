"""The deployment of the stores survives its replica, and leaves nothing behind."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from listening import free_port
from own_ray import own_ray
from ray import serve
from redis import Redis

from serve_app.config import ObservabilitySettings
from serve_app.deployments.embedded_stores import LOOPBACK, choose_ports, is_milvus_ready, is_redis_ready
from serve_app.deployments.stores import StoresDeployment, require_single_node
from serve_app.errors import InvalidConfiguration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The handle of `Stores` in a Ray of its own."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "1")
    with own_ray(log_to_driver=False, logging_level="ERROR"):
        serve.start(http_options={"host": LOOPBACK, "port": free_port()})
        stores = StoresDeployment.bind(
            tmp_path, choose_ports(tmp_path), ObservabilitySettings(), redis=True, milvus=True
        )
        yield serve.run(stores, name="stores", route_prefix=None)


def until(condition: Callable[[], object], within_s: float) -> None:
    give_up = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up, f"not within {within_s} s"
        time.sleep(0.05)


def listener(port: int) -> psutil.Process:
    """The process that serves on `port`."""
    listening = (each for each in psutil.net_connections("tcp") if each.status == "LISTEN")
    found = (each.pid for each in listening if each.laddr.ip.endswith(LOOPBACK) and each.laddr.port == port)
    return psutil.Process(next(found))


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.long
def test_a_killed_replica_takes_the_stores_along_and_its_successor_brings_them_back(
    deployed: Any, tmp_path: Path
) -> None:
    ports = choose_ports(tmp_path)
    assert [check.ok for check in deployed.checks.remote().result(timeout_s=30)] == [True, True]
    former = [listener(ports.redis), listener(ports.milvus)]
    replica = former[0].parent()
    assert replica is not None
    with Redis(port=ports.redis) as client:
        client.set("kept", "yes")

    replica.kill()
    until(lambda: all(gone(process) for process in former), within_s=10)
    until(lambda: is_redis_ready(ports.redis) and is_milvus_ready(ports.milvus), within_s=60)
    with Redis(port=ports.redis) as client:
        assert client.get("kept") == b"yes"
    assert choose_ports(tmp_path) == ports

    latter = [listener(ports.redis), listener(ports.milvus)]
    serve.shutdown()
    until(lambda: all(gone(process) for process in latter), within_s=10)


def test_more_than_one_node_is_refused() -> None:
    require_single_node(1)
    with pytest.raises(InvalidConfiguration, match="one node, not 2"):
        require_single_node(2)
