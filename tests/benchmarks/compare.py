"""Compares the service with FastAPI and with a bare Ray Serve graph, under the same load.

    python -m tests.benchmarks compare [--seconds 8] [--rounds 3] [--phases 0:32,0.5:64,0.5:256]

One stub model, in a process of its own, and one tool and two model calls a turn for all. The systems are:

    create_agent  FastAPI and LangChain's create_agent with ChatOpenAI, in two processes: the base of all ratios
    loop          FastAPI and a loop over dicts with aiohttp, in two processes: the least that Python needs
    graph         that loop in three Ray Serve deployments: the least that Ray Serve needs
    production    the service with configs/ray.env and all on: memory, journal, metrics, keys, isolated tool
    default       the service as `serve run` starts it without that file

Systems that are up take turns in one phase after the other, so that both sides of a ratio meet the same machine.
`production` and `default` are up one after the other: an idle Ray takes a fifth of a core. A phase is the latency of
the model in seconds and the number of clients. CPU is that of all processes of a system and of the stub model.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from tests.benchmarks.systems import fastapi, production, ray_graph, send_load, service, stub_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.benchmarks.systems import StubModel, System

    Phase = tuple[float, int]

BASE = "create_agent"
WARM_UP_S = 3.0
MIN_PART_MS = 0.05
"""Parts that cost less a turn are not printed."""


@dataclass
class Series:
    """The rounds of one system in one phase."""

    rounds: list[dict[str, Any]] = field(default_factory=list)

    def median(self, name: str) -> float:
        """Return the median of a figure over the rounds."""
        return median(each[name] for each in self.rounds)

    def part_ms(self) -> dict[str, float]:
        """Return the CPU time of each part in ms a turn, the largest first."""
        names = {name for each in self.rounds for name in each["part_ms"]}
        parts = {name: median(each["part_ms"].get(name, 0.0) for each in self.rounds) for name in names}
        return dict(sorted(parts.items(), key=lambda part: -part[1]))

    @property
    def failed(self) -> dict[str, int]:
        """The failed turns by their kind."""
        found: dict[str, int] = {}
        for each in self.rounds:
            for kind, count in each["failed"].items():
                found[kind] = found.get(kind, 0) + count
        return found


def measure(system: System, stub: StubModel, phase: Phase, seconds: float) -> dict[str, Any]:
    """Send the load of one phase; its figures."""
    latency_s, clients = phase
    stub.set(latency_s)
    before = stub.cpu_s()
    figures = send_load(system, "--clients", str(clients), seconds=seconds)
    turns = max(1, figures["turns"])
    used = {**figures["cpu_s"], "stub model": stub.cpu_s() - before}
    part_ms = {name: 1000 * used_s / turns for name, used_s in used.items()}
    return {
        **figures,
        "part_ms": part_ms,
        "cpu_ms": sum(part_ms.values()),
        "added_p50_s": figures["p50_s"] - 2 * latency_s,
        "added_p99_s": figures["p99_s"] - 2 * latency_s,
    }


def run_rounds(
    systems: Sequence[System], stub: StubModel, phases: Sequence[Phase], rounds: int, seconds: float
) -> dict[tuple[Phase, str], Series]:
    """Measure all systems in turn, in one phase after the other, so many times."""
    found: dict[tuple[Phase, str], Series] = {}
    for number in range(rounds):
        for phase in phases:
            for system in systems:
                if not number:
                    measure(system, stub, phase, WARM_UP_S)
                series = found.setdefault((phase, system.name), Series())
                series.rounds.append(measure(system, stub, phase, seconds))
    return found


def print_phases(found: dict[tuple[Phase, str], Series]) -> None:
    """Print a table for each phase, with ratios to the base."""
    for phase in dict.fromkeys(phase for phase, _ in found):
        latency_s, clients = phase
        print(f"\nmodel {1000 * latency_s:.0f} ms, {clients} clients")
        print(f"  {'':14}{'turns/s':>9}{'ratio':>7}{'added p50':>11}{'p99':>9}{'CPU/turn':>11}{'ratio':>7}  failed")
        base = found[phase, BASE]
        for name in dict.fromkeys(name for each, name in found if each == phase):
            series = found[phase, name]
            rate, cpu_ms = series.median("turns_per_s"), series.median("cpu_ms")
            print(
                f"  {name:14}{rate:9.1f}{rate / base.median('turns_per_s'):7.2f}"
                f"{1000 * series.median('added_p50_s'):8.0f} ms{1000 * series.median('added_p99_s'):6.0f} ms"
                f"{cpu_ms:8.2f} ms{cpu_ms / base.median('cpu_ms'):7.2f}  {series.failed or ''}"
            )
        for name in dict.fromkeys(name for each, name in found if each == phase):
            parts = {part: ms for part, ms in found[phase, name].part_ms().items() if ms >= MIN_PART_MS}
            print(f"  {name}: " + ", ".join(f"{part} {ms:.2f}" for part, ms in parts.items()))


def print_memory(systems: Sequence[System]) -> None:
    """Print the memory of each system, and how long it took to answer."""
    for system in systems:
        used = system.pss_bytes()
        largest = ", ".join(f"{part} {size / 1e6:.0f}" for part, size in used.most_common(6))
        started = f"first answer after {system.started_s:.1f} s, " if system.started_s else ""
        print(f"{system.name}: {started}{used.total() / 1e9:.2f} GB PSS ({largest} MB)")


def _compare(phases: Sequence[Phase], rounds: int, seconds: float) -> None:
    with ExitStack() as stack:
        stub = stack.enter_context(stub_model())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        base = stack.enter_context(fastapi(BASE, "fastapi_agent", stub.url))
        loop = stack.enter_context(fastapi("loop", "fastapi_loop", stub.url))
        with ExitStack() as up:
            graph = up.enter_context(ray_graph("graph", stub.url, folder / "graph"))
            print_memory([graph])
            print_phases(run_rounds([base, loop, graph], stub, phases, rounds, seconds))
        for name in ("production", "default"):
            own = folder / name
            own.mkdir()
            environment = production(own) if name == "production" else {}
            with service(name, stub.url, own, environment=environment) as system:
                print_memory([system])
                print_phases(run_rounds([base, system], stub, phases, rounds, seconds))
                print_memory([system])


def _phase(text: str) -> Phase:
    latency_s, clients = text.split(":")
    return float(latency_s), int(clients)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--phases", type=lambda text: [_phase(each) for each in text.split(",")])
    given = parser.parse_args()
    _compare(given.phases or [(0.0, 32), (0.5, 64), (0.5, 256)], given.rounds, given.seconds)
