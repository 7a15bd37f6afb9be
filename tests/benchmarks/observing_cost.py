"""Measures what metrics, logs and traces cost the running service.

    python tests/benchmarks/observing_cost.py [--rounds 40]

Starts three services side by side on a Ray of its own, each with one process per deployment and the offline model: one
without metrics and logs, one with the defaults, and one that also traces a tenth of its turns to a collector of each
kind. Each runs turns with a tool call, 16 at a time, in short alternating blocks. Prints the turns per second of each
as a share of the first one's.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import yaml

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "service")]

from collectors import langsmith, otlp  # noqa: E402 - after the path
from running_service import ROOT, Service, beside, started  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

AT_ONCE, BLOCK = 16, 48
WARM_UP = 200
NOTHING = "quiet"
QUIET = {"observability": {"metrics": False, "steps": False}}
TRACED = {"observability": {"trace_sampling": 0.1}}
SHARE = {"default": 0.95, "traced": 0.90}
"""The required share."""


@dataclass
class Measurement:
    """Turns of one service, and the time that they took."""

    turns: int = 0
    wall_s: float = 0
    processor_s: float = 0
    """Of all its processes."""

    @property
    def per_second(self) -> float:
        return self.turns / self.wall_s


async def block(http: httpx.AsyncClient, service: Service, turns: int, sessions: Iterator[int]) -> None:
    """Run so many turns, 16 at a time."""
    left = iter(range(turns))

    async def converse() -> None:
        for _ in left:
            number = next(sessions)
            body = {"user_input": f"Where is order OD-{number:08}?", "session_id": f"cost-{number}"}
            response = await http.post(f"{service.url}/agent/chat", json=body)
            if response.raise_for_status().json()["status"] != "success":
                raise RuntimeError(response.text)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(converse())


async def measure(services: dict[str, Service], rounds: int) -> dict[str, Measurement]:
    """Measure each service, in alternating blocks: other load on the machine hits all alike."""
    found = {name: Measurement() for name in services}
    replicas = {name: service.processes(f"ServeReplica:{name}:") for name, service in services.items()}
    sessions = iter(range(10**8))
    async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
        for service in services.values():
            await block(http, service, WARM_UP, sessions)
        for number in range(rounds):
            names = list(services)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                each, before = found[name], _processor_s(replicas[name])
                begun = time.perf_counter()
                await block(http, services[name], BLOCK, sessions)
                each.wall_s += time.perf_counter() - begun
                each.processor_s += _processor_s(replicas[name]) - before
                each.turns += BLOCK
    return found


def _processor_s(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _main(rounds: int) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        configuration: dict[str, Any] = {
            "orders": {"file": str(ROOT / "configs" / "orders.json")},
            "tools": {"order_query": {"function": "serve_app.tools.orders:order_query"}},
        }
        first, second = stack.enter_context(langsmith()), stack.enter_context(otlp())
        variables = {
            "LANGSMITH_TRACING": "true",
            "LANGSMITH_API_KEY": "key",
            "LANGSMITH_ENDPOINT": first.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": second.url,
        }
        (folder / "first.yaml").write_text(yaml.safe_dump(configuration))
        service = stack.enter_context(started(folder, folder / "first.yaml"))
        quiet = {**configuration, **QUIET}
        silent = {"logging_config": {"log_level": "CRITICAL"}}
        traced = {"runtime_env": {"env_vars": variables}}
        services = {
            NOTHING: stack.enter_context(beside(service, NOTHING, quiet, silent)),
            "default": stack.enter_context(beside(service, "default", configuration)),
            "traced": stack.enter_context(beside(service, "traced", {**configuration, **TRACED}, traced)),
        }
        found = asyncio.run(measure(services, rounds))
    base = found[NOTHING]
    print(f"{base.turns} turns of each, by turns of {BLOCK}")
    for name, each in found.items():
        processor_ms = 1000 * each.processor_s / each.turns
        share = each.per_second / base.per_second
        wanted = f", {SHARE[name]:.0%} is required" if name in SHARE else ""
        print(
            f"{name:8} {each.per_second:5.1f} turns/s, {processor_ms:5.2f} ms of processor a turn: {share:.1%}{wanted}"
        )


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    _main(parser.parse_args().rounds)
