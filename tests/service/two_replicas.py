"""Runs a second service with two replicas of each deployment, and kills some of them."""

from __future__ import annotations

import asyncio
import copy
import itertools
import os
import signal
import time
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import yaml
from following_client import FollowingClient
from running_service import START_S, Service, deploy
from task_model import DEVICES, TaskModel
from traced_tools import trace

from serve_app.deployments.embedded_stores import choose_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import psutil

NAME = "pair"
SEARCH_S = 5
"""So long may a search take: tests share two cores, and a search that is too late is none of these tests' matters."""
DEPLOYMENTS = ("Ingress", "Agent", "Tools", "Retriever")
MANUAL = "# The {device} device\n\nThe {device} device opens with the code word {word}, said slowly and twice.\n"


@dataclass(frozen=True, kw_only=True)
class Pair(Service):
    """The second service; what happens to its processes is done here."""

    model: TaskModel
    main: Service
    settings: dict[str, Any]
    application: dict[str, Any]
    versions: Iterator[int]

    @property
    def redis_url(self) -> str:
        return str(self.settings["redis"])

    def replicas(self, deployment: str) -> list[psutil.Process]:
        return self.processes(f"ServeReplica:{NAME}:{deployment}")

    def whole(self, *deployments: str) -> bool:
        """Whether both replicas of each are there and ready, by Serve's word and by the system's."""
        from ray import serve

        application = serve.status().applications[NAME]
        return all(
            application.deployments[each].replica_states == {"RUNNING": 2} and len(self.replicas(each)) == 2
            for each in deployments
        )

    def wait_until_whole(self, seconds: float = START_S, deployments: tuple[str, ...] = DEPLOYMENTS) -> None:
        give_up = time.monotonic() + seconds
        while not self.whole(*deployments):
            assert time.monotonic() < give_up, f"{deployments} are not whole within {seconds} s"
            time.sleep(0.25)

    def redeploy(self, **runs: Any) -> None:
        """Replace every replica, one with other settings for runs coming before the old one goes."""
        old = {process.pid for each in DEPLOYMENTS for process in self.replicas(each)}
        self.settings["runs"] = runs
        self.application["args"] = {"config": self._written()}
        deploy(self.main.deployed)
        give_up = time.monotonic() + START_S
        while any(process.pid in old for each in DEPLOYMENTS for process in self.replicas(each)):
            assert time.monotonic() < give_up, "the old replicas are still there"
            time.sleep(0.25)
        self.wait_until_whole()

    def with_runs(self, **runs: Any) -> None:
        """See that these are the settings for runs."""
        if self.settings.get("runs", {}) != runs:
            self.redeploy(**runs)

    def busiest_agent(self) -> psutil.Process:
        """The one that is in the most calls of the model."""
        port = urlsplit(self.model.url).port

        def calls(agent: psutil.Process) -> int:
            return sum(bool(each.raddr) and each.raddr.port == port for each in agent.net_connections("tcp"))

        return max(self.replicas("Agent"), key=calls)

    def kill_redis(self) -> float:
        """When it was killed; its keeper starts it again."""
        (victim,) = self.processes("redis-server", f":{choose_ports(self.data_dir).redis}")
        victim.send_signal(signal.SIGKILL)
        return time.monotonic()

    def traced(self, tool: str) -> Counter[str]:
        """How often the tool left which line."""
        path = trace(tool)
        return Counter(path.read_text().splitlines() if path.exists() else [])

    @asynccontextmanager
    async def following(self, connections: int = 100) -> AsyncIterator[FollowingClient]:
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=self.url, timeout=75, limits=limits, trust_env=False) as client:
            yield FollowingClient(client)

    def _written(self) -> str:
        path = self.data_dir / f"{NAME}-{next(self.versions)}.yaml"
        path.write_text(yaml.safe_dump(self.settings))
        return str(path)


@contextmanager
def paired(service: Service, model: TaskModel) -> Iterator[Pair]:
    """The second service at `/pair`, on the first one's stores, whose model does tasks.

    In a Redis database of its own: agents adopt whichever runs they find in theirs.
    """
    application = copy.deepcopy(service.deployed["applications"][0])
    application.update(name=NAME, route_prefix=f"/{NAME}")
    for each in application["deployments"]:
        del each["autoscaling_config"]
        each.update(num_replicas=2, ray_actor_options={"num_cpus": 0.01}, health_check_period_s=1)
        if each["name"] == "Ingress":
            logs = service.data_dir / "access"
            each["logging_config"] = {"enable_access_log": True, "logs_dir": str(logs)}
    pair = Pair(
        url=f"{service.url}/{NAME}",
        data_dir=service.data_dir,
        deployed=service.deployed,
        model=model,
        main=service,
        settings=_settings(service, model),
        application=application,
        versions=itertools.count(),
    )
    application["args"] = {"config": pair._written()}
    service.deployed["applications"].append(application)
    try:
        deploy(service.deployed)
        pair.wait_until_ready(START_S)
        pair.wait_until_whole()
        _teach(pair)
        yield pair
    finally:
        service.deployed["applications"].remove(application)
        deploy(service.deployed)


def _settings(service: Service, model: TaskModel) -> dict[str, Any]:
    ports = choose_ports(service.data_dir)
    tools: dict[str, dict[str, Any]] = {name: {"function": f"traced_tools:{name}"} for name in ("price_of", "stock_of")}
    tools["notify"] = {"function": "traced_tools:notify", "effect": "idempotent"}
    tools["book"] = {"function": "traced_tools:book", "effect": "effect"}
    tools["watch"] = {"function": "traced_tools:watch", "timeout_s": 30}
    return {
        "redis": f"redis://127.0.0.1:{ports.redis}/1",
        "milvus": f"http://127.0.0.1:{ports.milvus}",
        "model": {"name": "openai:tasks", "base_url": model.url},
        "tools": tools,
        "knowledge": {"collection": NAME, "timeout_s": SEARCH_S},
        "runs": {"second_message": "reject"},
    }


def _teach(pair: Pair) -> None:
    documents = [
        {"source": f"{device}.md", "text": MANUAL.format(device=device, word=word)} for device, word in DEVICES.items()
    ]
    with pair.client() as client:
        response = client.post("/knowledge/documents", json={"documents": documents})
    assert {each["status"] for each in response.json()["documents"]} <= {"added", "unchanged"}, response.text


def kill(process: psutil.Process, sent: int = signal.SIGKILL) -> float:
    """Send the process a signal; when that was."""
    os.kill(process.pid, sent)
    return time.monotonic()


async def until(true: Any, seconds: float, what: str) -> None:
    """Wait for `true()`, which may block."""
    give_up = time.monotonic() + seconds
    while not await asyncio.to_thread(true):
        assert time.monotonic() < give_up, what
        await asyncio.sleep(0.05)
