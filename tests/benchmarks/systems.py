"""Starts the systems that are compared, each in processes of its own, and measures what they use."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import yaml
from dotenv import dotenv_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT / "tests")]

from listening import free_port  # noqa: E402 - after the path

ADMIN_KEY = secrets.token_urlsafe(32)
TOOL = "tests.benchmarks.fastapi_loop:order_query"
AS_BATCH = ("chrt", "--batch", "0")
"""How the manual starts Ray in production."""
START_S = 150
STOP_S = 40
PLAIN = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "LANGSMITH_TRACING": "false",
    "PYTHONPATH": str(ROOT),
}
ROLES = {
    "redis-server": "Redis",
    "milvus": "Milvus",
    "ServeController": "controller",
    "ProxyActor": "Serve's proxy",
    "HAProxyManager": "HAProxy's manager",
    "haproxy": "HAProxy",
    "raylet": "raylet",
    "gcs_server": "GCS",
    "dashboard": "dashboard",
    "DashboardAgent": "dashboard",
    "runtime_env": "dashboard",
    "uvicorn": "uvicorn",
    "multiprocessing": "uvicorn",
    "serve run": "driver",
}
"""A word of a command line -> the part that the process belongs to."""


@dataclass(frozen=True, slots=True)
class System:
    """A running system under test."""

    name: str
    urls: tuple[str, ...]
    """Clients use them in turn."""
    roots: tuple[psutil.Process, ...]
    headers: Mapping[str, str] = field(default_factory=dict)
    started_s: float = 0.0
    """Seconds from its start to its first answer."""

    def processes(self) -> list[psutil.Process]:
        """All of its processes."""
        found = []
        for root in self.roots:
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [root, *root.children(recursive=True)]
        return found

    def agents(self) -> int:
        """The Agent replicas that are ready: Ray names the process of another by what it does."""
        return sum(role_of(process) == "Agent" for process in self.processes())

    def cpu_s(self) -> Counter[str]:
        """CPU seconds so far, by part."""
        used: Counter[str] = Counter()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                used[role_of(process)] += times.user + times.system
        return used

    def pss_bytes(self) -> Counter[str]:
        """Proportional set size, by part: memory that processes share is counted once."""
        used: Counter[str] = Counter()
        for process in self.processes():
            with contextlib.suppress(psutil.Error, OSError):
                rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
                kib = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
                used[role_of(process)] += 1024 * kib
        return used


def role_of(process: psutil.Process) -> str:
    """Return the part of a system that a process is."""
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return "others"
    if "ServeReplica:" in line:
        return line.split("ServeReplica:")[1].split(":")[1].split()[0].split("#")[0]
    if line.startswith("ray::"):
        return next((role for word, role in ROLES.items() if word in line), "Ray's workers")
    return next((role for word, role in ROLES.items() if word in line), "others")


@contextlib.contextmanager
def stub_model() -> Iterator[StubModel]:
    """The model endpoint."""
    with _process([sys.executable, "-m", "tests.benchmarks.stub_model"], {}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield StubModel(f"http://127.0.0.1:{port}", psutil.Process(process.pid))


@dataclass(frozen=True, slots=True)
class StubModel:
    """The running model endpoint."""

    url: str
    process: psutil.Process

    def set(self, latency_s: float, tokens: int = 20, token_interval_s: float = 0.0, tool: str = "order_query") -> None:
        """Have it answer in this time from now on, and call this tool."""
        body = {"latency_s": latency_s, "tokens": tokens, "token_interval_s": token_interval_s, "tool": tool}
        httpx.put(f"{self.url}/settings", json=body, trust_env=False).raise_for_status()

    def cpu_s(self) -> float:
        """CPU seconds so far."""
        times = self.process.cpu_times()
        return times.user + times.system


@contextlib.contextmanager
def fastapi(name: str, module: str, model_url: str, workers: int = 2) -> Iterator[System]:
    """A FastAPI baseline in so many processes.

    Each has a port, so that clients spread their turns evenly: on a shared one, a worker may get most connections.
    """
    urls, roots = [], []
    with contextlib.ExitStack() as stack:
        for _ in range(workers):
            port = free_port()
            command = [sys.executable, "-m", "uvicorn", f"tests.benchmarks.{module}:app", "--port", str(port)]
            command += ["--log-level", "warning", "--no-access-log", "--backlog", "4096"]
            process = stack.enter_context(_process(command, {"MODEL_URL": f"{model_url}/v1", **PLAIN}))
            urls.append(f"http://127.0.0.1:{port}")
            roots.append(psutil.Process(process.pid))
        system = System(name, tuple(urls), tuple(roots))
        for url in urls:
            _wait_for_answer(name, url, {})
        yield system


@contextlib.contextmanager
def ray_graph(name: str, model_url: str, folder: Path) -> Iterator[System]:
    """The bare graph, in the production profile."""
    deployed = {"applications": [{"name": "graph", "import_path": "tests.benchmarks.ray_graph:build", "args": {}}]}
    environment = {"MODEL_URL": f"{model_url}/v1", **production(folder)}
    with _serve_run(name, deployed, environment, folder) as system:
        yield system


@contextlib.contextmanager
def service(  # noqa: PLR0913 - each is a setting of its own
    name: str,
    model_url: str,
    folder: Path,
    settings: Mapping[str, Any] | None = None,
    *,
    scaling: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[System]:
    """The service as `serve_config.yaml` has it, with keys, embedded stores and an isolated tool.

    `scaling` has changes of Agent's `autoscaling_config` there.
    """
    folder.mkdir(exist_ok=True)
    configuration = {
        "redis": "embedded",
        "milvus": "embedded",
        "model": {"name": "openai:stub", "base_url": f"{model_url}/v1", "api_key_env": "STUB_KEY", "profile": "vllm"},
        "access": {"admin_key_env": "BENCHMARK_ADMIN_KEY"},
        "tools": {"order_query": {"function": TOOL, "timeout_s": 5, "effect": "pure"}},
        **(settings or {}),
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(configuration))
    deployed = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    application = deployed["applications"][0]
    application["args"]["config"] = str(folder / "settings.yaml")
    [agent] = (entry for entry in application["deployments"] if entry["name"] == "Agent")
    agent["autoscaling_config"].update(scaling or {})
    own = {"STUB_KEY": "k", "BENCHMARK_ADMIN_KEY": ADMIN_KEY, "SERVE_APP_DATA_DIR": str(folder / "data")}
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with _serve_run(name, deployed, {**own, **(environment or {})}, folder, headers) as system:
        yield system


def production(folder: Path) -> dict[str, str]:
    """The variables of `configs/ray.env`, apart from any other service of this machine."""
    return {
        **{name: value or "" for name, value in dotenv_values(ROOT / "configs" / "ray.env").items()},
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }


@contextlib.contextmanager
def _serve_run(
    name: str, deployed: dict[str, Any], environment: Mapping[str, str], folder: Path, headers: Mapping[str, str] = {}
) -> Iterator[System]:
    folder.mkdir(exist_ok=True)
    port = free_port()
    deployed["http_options"] = {"host": "127.0.0.1", "port": port}
    (folder / "serve_config.yaml").write_text(yaml.safe_dump(deployed))
    command = [str(Path(sys.executable).parent / "serve"), "run", str(folder / "serve_config.yaml")]
    if "RAY_SERVE_ENABLE_HA_PROXY" in environment:
        command = [*AS_BATCH, *command]
    begun = time.monotonic()
    with _process(command, {**PLAIN, **environment}, log=folder / "serve.log") as process:
        url = f"http://127.0.0.1:{port}"
        _wait_for_answer(name, url, headers)
        yield System(name, (url,), (psutil.Process(process.pid),), headers, time.monotonic() - begun)


def _wait_for_answer(name: str, url: str, headers: Mapping[str, str]) -> None:
    """Wait until a turn is answered."""
    until = time.monotonic() + START_S
    last = ""
    body = {"user_input": "Where is order OD-1?", "session_id": "start"}
    while time.monotonic() < until:
        with contextlib.suppress(httpx.HTTPError), httpx.Client(trust_env=False, timeout=10) as client:
            response = client.post(f"{url}/agent/chat", json=body, headers=dict(headers))
            last = response.text[:200]
            if response.status_code == httpx.codes.OK:
                return
        time.sleep(0.2)
    raise RuntimeError(f"{name} is not ready within {START_S} s: {last}")


@contextlib.contextmanager
def _process(
    command: list[str], environment: Mapping[str, str], log: Path | None = None, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """A process with all that it starts; they end with the block."""
    with contextlib.ExitStack() as stack:
        if log:
            output = stack.enter_context(log.open("w"))
            options |= {"stdout": output, "stderr": output}
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, cwd=ROOT, text=True, start_new_session=True, **options
        )
        try:
            yield process
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    """End a process as an operator does, and kill whatever is left of it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        known = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        for each in [*known]:
            with contextlib.suppress(psutil.Error):
                each.kill()
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


def send_load(system: System, *options: str, seconds: float) -> dict[str, Any]:
    """Send turns from a process of its own; its figures, and the CPU time of the system by part."""
    key = system.headers.get("Authorization", "").removeprefix("Bearer ")
    command = [sys.executable, "-m", "tests.benchmarks.load", *system.urls, "--seconds", str(seconds), *options]
    before, begun = system.cpu_s(), time.monotonic()
    environment = {**os.environ, "BENCHMARK_KEY": key}
    ran = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, timeout=seconds + 200)
    used = system.cpu_s() - before
    figures: dict[str, Any] = json.loads(ran.stdout)
    return {**figures, "cpu_s": dict(used), "elapsed_s": time.monotonic() - begun}
