"""A replica starts its tasks once, notices when one ends, and leaves nothing open when it is stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import pytest

from serve_app.config import ObservabilitySettings, RedisSettings, Settings
from serve_app.deployments import runtime as runtime_module
from serve_app.deployments.agent import Agent
from serve_app.deployments.ingress import Ingress
from serve_app.deployments.replica_metrics import RayMetrics
from serve_app.deployments.retriever import Retriever
from serve_app.deployments.runtime import ReplicaRuntime
from serve_app.deployments.tools import ToolsDeployment
from serve_app.errors import Internal
from serve_app.observability.logs import RunLogHandler
from serve_app.observability.metrics import NULL_METRICS
from serve_app.observability.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis.asyncio import Redis


@pytest.fixture(autouse=True)
def _logs_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logs of this process stay those of pytest."""
    monkeypatch.setattr(runtime_module, "redact_logs", lambda _: RunLogHandler(logging.Formatter(), Redactor()))


def _runtime() -> ReplicaRuntime:
    return ReplicaRuntime(ObservabilitySettings(metrics=False))


async def _forever() -> None:
    await asyncio.Event().wait()


class NoTools:
    """The method `specs` of a deployment without tools."""

    async def remote(self) -> list[Any]:
        return []


class Handle:
    """A handle of a deployment, of which a new agent asks for the tools."""

    specs = NoTools()

    def options(self, **_: Any) -> Handle:
        return self


def test_a_service_without_metrics_calls_nothing_of_ray() -> None:
    assert _runtime().metrics is NULL_METRICS
    assert isinstance(ReplicaRuntime(ObservabilitySettings()).metrics, RayMetrics)


async def test_what_is_opened_last_is_closed_first_and_a_failure_or_a_hang_stops_nothing(captured_logs: Any) -> None:
    runtime, closed = _runtime(), []

    async def close(name: str) -> None:
        closed.append(name)
        if name == "fails":
            raise OSError(name)
        if name == "hangs":
            await _forever()

    runtime.start_task("works", _forever())
    for name, timeout_s in (("first", 5.0), ("fails", 5.0), ("hangs", 0.05), ("last", 5.0)):
        runtime.on_close(name, lambda name=name: close(name), timeout_s)
    await runtime.close()
    await runtime.close()
    assert closed == ["last", "hangs", "fails", "first"]
    assert [line["resource"] for line in captured_logs.of("close_failed")] == ["hangs", "fails"]
    assert {task.get_name() for task in asyncio.all_tasks()} == {asyncio.current_task().get_name()}


async def test_a_replica_one_of_whose_tasks_has_ended_is_not_healthy() -> None:
    runtime = _runtime()
    runtime.start_process_metrics()
    runtime.start_task("run_log", _forever())
    await asyncio.sleep(0)
    runtime.check_tasks()
    runtime.start_task("api_keys", asyncio.sleep(0))
    await asyncio.sleep(0.01)
    with pytest.raises(Internal, match="api_keys"):
        runtime.check_tasks()
    await runtime.close()


def _class_of(deployment: Any) -> Any:
    """The class as it is written, without what Serve wraps around it, and with no end but the test's."""
    written = next(each for each in deployment.func_or_class.__mro__ if "check_health" in vars(each))
    return type(written.__name__, (written,), {"stop": written.__del__, "__del__": lambda _: None})


def _connections() -> set[tuple[int, int]]:
    """The local and the remote port of each connection of this process."""
    established = (each for each in psutil.Process().net_connections("tcp") if each.status == "ESTABLISHED")
    return {(each.laddr.port, each.raddr.port) for each in established}


def _port(url: str) -> int:
    return urlsplit(url).port or 0


def _others(before: Iterable[asyncio.Task[Any]]) -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks() if task not in before}


@pytest.mark.parametrize("name", ["Ingress", "Agent", "Retriever", "Tools"])
async def test_a_replica_that_ends_leaves_no_task_and_no_connection(
    name: str, redis: Redis, redis_url: str, milvus_url: str
) -> None:
    settings = Settings(
        redis=RedisSettings(url=redis_url),
        milvus={"url": milvus_url},
        knowledge={"collection": f"c{uuid4().hex}"},
        observability={"metrics": False},
    )
    await redis.ping()
    tasks, before = asyncio.all_tasks(), _connections()
    deployment, arguments = {
        "Ingress": (Ingress, (settings, Handle(), Handle(), {None: Handle()})),
        "Agent": (Agent, (settings, Handle(), {None: Handle()})),
        "Retriever": (Retriever, (settings, None)),
        "Tools": (ToolsDeployment, (settings, None)),
    }[name]
    kind = _class_of(deployment)
    replica = object.__new__(kind)
    begun = kind.__init__(replica, *arguments)
    if begun is not None:
        await begun
    if name == "Ingress":
        await replica.__serve_build_asgi_app__()
    if name == "Retriever":
        await replica.checks()
    await asyncio.sleep(0.6)
    replica.check_health()
    assert "process_metrics" in _others(tasks)
    servers = {"Tools": set(), "Retriever": {_port(redis_url), _port(milvus_url)}}.get(name, {_port(redis_url)})
    assert {remote for _, remote in _connections() - before} == servers
    await replica.stop()
    async with asyncio.timeout(3):
        while _others(tasks) or _connections() - before:  # noqa: ASYNC110 - threads of gRPC are waited for, too
            await asyncio.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this policy")
def test_a_message_for_a_replica_interrupts_no_other_process() -> None:
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    _runtime()
    assert os.sched_getscheduler(0) == os.SCHED_BATCH
