"""Starts the real service, waits for it, and sends it requests."""

from __future__ import annotations

import contextlib
import copy
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import yaml
from listening import free_port
from own_ray import own_ray

from serve_app.deployments.embedded_stores import choose_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parent.parent.parent
START_S = 150

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "1",
    "RAY_DEDUP_LOGS": "0",
    "LANGSMITH_TRACING": "false",
    "STUB_KEY": "sk-stub-789",
    "TENANTS_ADMIN_KEY": "operators-key-of-thirty-two-characters",
    "PYTHONPATH": f"{Path(__file__).parent}:{ROOT / 'tests' / 'provider'}",
}
GUARDS = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.deployments.guards:guards"}
"""As the README has it for a service without nginx."""


@dataclass(frozen=True)
class Service:
    """Where the service is, and where its data are."""

    url: str
    data_dir: Path
    deployed: dict[str, Any] = field(default_factory=dict)
    """The Serve configuration that it runs by."""

    def client(self, timeout_s: float = 60) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=timeout_s, trust_env=False)

    def ask(self, text: str, session: str, **fields: Any) -> dict[str, Any]:
        """One turn; its answer."""
        with self.client() as client:
            response = client.post("/agent/chat", json={"user_input": text, "session_id": session, **fields})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def wait_until_ready(self, seconds: float) -> float:
        """Seconds until `/readyz` says so."""
        begun = time.monotonic()
        last = "no answer"
        while time.monotonic() - begun < seconds:
            with contextlib.suppress(httpx.HTTPError), self.client(5) as client:
                response = client.get("/readyz")
                last = response.text
                if response.status_code == 200:
                    return time.monotonic() - begun
            time.sleep(0.2)
        raise AssertionError(f"not ready within {seconds} s: {last}")

    def processes(self, *words: str) -> list[psutil.Process]:
        """The running processes under this test whose command line has all the words."""
        return [
            process
            for process in psutil.Process().children(recursive=True)
            if _has(process, words) and process.status() != psutil.STATUS_ZOMBIE
        ]


def _has(process: psutil.Process, words: tuple[str, ...]) -> bool:
    with contextlib.suppress(psutil.Error):
        line = " ".join(process.cmdline())
        return all(word in line for word in words)
    return False


@contextlib.contextmanager
def started(folder: Path, configuration: Path) -> Iterator[Service]:
    """The service that `serve run serve_config.yaml` starts, on a Ray of its own; its data are in `folder`."""
    port = free_port()
    deployed = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    deployed["http_options"]["port"] = port
    deployed["applications"][0]["args"]["config"] = str(configuration)
    own = {"SERVE_APP_DATA_DIR": str(folder / "data"), "PYTHONPATH": f"{folder}:{ENVIRONMENT['PYTHONPATH']}"}
    with environment({**ENVIRONMENT, **own}), own_ray(logging_level="warning"):
        deploy(deployed)
        running = Service(f"http://127.0.0.1:{port}", folder / "data", deployed)
        running.wait_until_ready(START_S)
        yield running


@contextlib.contextmanager
def beside(
    service: Service,
    name: str,
    configuration: dict[str, Any],
    application: Mapping[str, Any] = MappingProxyType({}),
    **replicas: int,
) -> Iterator[Service]:
    """A second application in the same cluster, at `/name`, on the first one's stores, with so many replicas of each.

    A group of tools in the configuration gets its deployment; `application` has more keys of its Serve configuration.

    In a Redis database of its own: agents adopt whichever runs they find in theirs.
    """
    ports = choose_ports(service.data_dir)
    stores = {"redis": f"redis://127.0.0.1:{ports.redis}/2", "milvus": f"http://127.0.0.1:{ports.milvus}"}
    path = service.data_dir / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**stores, **configuration}))
    applications = service.deployed["applications"]
    second = {
        **copy.deepcopy(applications[0]),
        "name": name,
        "route_prefix": f"/{name}",
        "args": {"config": str(path)},
        **application,
    }
    [tools] = (each for each in second["deployments"] if each["name"] == "Tools")
    for group in configuration.get("tools", {}).get("groups", {}):
        second["deployments"].append({**copy.deepcopy(tools), "name": f"Tools-{group}"})
    for deployment in second["deployments"]:
        deployment["ray_actor_options"] = {"num_cpus": 0.01}
        deployment["autoscaling_config"]["min_replicas"] = replicas.get(deployment["name"], 1)
    applications.append(second)
    try:
        deploy(service.deployed)
        running = replace(service, url=f"{service.url}/{name}")
        running.wait_until_ready(START_S)
        yield running
    finally:
        applications.remove(second)
        deploy(service.deployed)


def deploy(configuration: dict[str, Any]) -> None:
    """What `serve run` itself does."""
    from ray.serve._private.api import serve_start
    from ray.serve.schema import ServeDeploySchema

    schema = ServeDeploySchema.model_validate(configuration)
    client = serve_start(schema.http_options.model_dump(), proxy_location=schema.proxy_location)
    client.deploy_apps(schema, _blocking=False)


@contextlib.contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
