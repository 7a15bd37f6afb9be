"""Measures what a turn costs as the service grows.

    python -m tests.benchmarks growth [conversations] [tools] [passages] [replicas]

    conversations   from the first turns of a conversation to its thousandth, and from a hundred to 50,000 conversations
    tools           1 and 100 tools, whose schemas the model reads with each call
    passages        1,000 and 20,000 passages in the embedded Milvus, or as many as --passages says, of which each turn
                    searches all; most have two words of the query
    replicas        1, 2 and 4 replicas of Agent

All with configs/ray.env, 16 clients and a model that answers at once, two calls of it and one of a tool in each turn.
FastAPI with LangChain's create_agent is measured beside each figure, because the machine's speed changes: a growth of
1.00 says that a turn costs as much more than there as it did at first.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import httpx

from tests.benchmarks.systems import TOOL, fastapi, production, send_load, service, stub_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.benchmarks.systems import StubModel, System

CLIENTS = 16
ROUNDS, SECONDS = 3, 3.0
FILL_S = 5.0
DOCUMENTS, SECTIONS = 20, 50
"""Of one batch; a section becomes a passage."""
START_S = 60.0
WORDS = ("valve", "seal", "bearing", "motor", "flange", "gasket", "shaft", "filter", "hose", "sensor", "cable", "panel")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a turn costs: medians over the rounds, and as ratios to the base in the same rounds."""

    cpu_ms: float
    p50_ms: float
    cpu_ratio: float
    p50_ratio: float
    turns: int
    """Turns that were measured, of all clients."""

    def compared_to(self, first: Cost) -> str:
        """Describe this cost beside an earlier one."""
        cpu, p50 = self.cpu_ratio / first.cpu_ratio, self.p50_ratio / first.p50_ratio
        return f"{self.cpu_ms:.2f} ms CPU, growth {cpu:.2f}; p50 {self.p50_ms:.0f} ms, growth {p50:.2f}"


class Meter:
    """Measures turns beside those of the base."""

    def __init__(self, base: System) -> None:
        self._base = base

    def measure(self, system: System, *options: str) -> Cost:
        """Send turns to both systems in turn."""
        rounds = []
        for _ in range(ROUNDS):
            base, own = (_send(each, SECONDS, *options) for each in (self._base, system))
            rounds.append((own["cpu_ms"], 1000 * own["p50_s"], base["cpu_ms"], 1000 * base["p50_s"], own["turns"]))
        cpu_ms, p50_ms, base_cpu_ms, base_p50_ms, _ = map(median, zip(*rounds, strict=True))
        return Cost(cpu_ms, p50_ms, cpu_ms / base_cpu_ms, p50_ms / base_p50_ms, sum(each[-1] for each in rounds))


def _send(system: System, seconds: float, *options: str) -> dict[str, Any]:
    found = send_load(system, "--clients", str(CLIENTS), *options, seconds=seconds)
    if found["failed"]:
        raise RuntimeError(f"turns failed: {found['failed']}")
    return {**found, "cpu_ms": 1000 * sum(found["cpu_s"].values()) / found["turns"]}


@contextmanager
def _service(stub: StubModel, **options: Any) -> Iterator[System]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "production"
        folder.mkdir()
        with service("production", stub.url, folder, environment=production(folder), **options) as system:
            _send(system, SECONDS)
            yield system


def measure_conversations(stub: StubModel, meter: Meter, turns: int = 1000, conversations: int = 50_000) -> None:
    """Long conversations, then many."""
    long, new = ("--sessions", "long", "--turns-a-session", "0"), ("--turns-a-session", "1")
    with _service(stub) as system:
        few = meter.measure(system, "--sessions", "few", "--turns-a-session", "10")
        _send(system, 1.0, *long)
        early = meter.measure(system, *long)
        reached = early.turns // CLIENTS
        print(f"turns 1 to {reached} of a conversation: {early.compared_to(early)}", flush=True)
        while reached < turns:
            reached += _send(system, FILL_S, *long)["turns"] // CLIENTS
        late = meter.measure(system, *long)
        print(f"turns from {reached} on: {late.compared_to(early)}", flush=True)
        begun = 0
        first = meter.measure(system, *new)
        print(f"{first.turns} conversations: {first.compared_to(first)}", flush=True)
        while begun < conversations:
            begun += _send(system, 4 * FILL_S, *new)["turns"]
        many = meter.measure(system, "--sessions", "many", "--turns-a-session", "10")
        print(f"100 conversations of 10 turns at first: {few.compared_to(few)}", flush=True)
        print(f"the same after {begun:,} conversations: {many.compared_to(few)}", flush=True)


def measure_tools(stub: StubModel, meter: Meter) -> None:
    """One tool, then a hundred."""
    tool = {"function": TOOL, "timeout_s": 5, "effect": "pure"}
    first: Cost | None = None
    for count in (1, 100):
        names = ("order_query", *(f"order_query_{number}" for number in range(1, count)))
        with _service(stub, settings={"tools": dict.fromkeys(names, tool)}) as system:
            cost = meter.measure(system)
        first = first or cost
        print(f"{count} tools: {cost.compared_to(first)}", flush=True)


def measure_passages(stub: StubModel, meter: Meter, counts: Sequence[int] = (1_000, 20_000)) -> None:
    """Turns that search a small and a large knowledge base."""
    first: Cost | None = None
    added = 0
    with _service(stub) as system:
        for count in counts:
            begun = time.monotonic()
            while added < count:
                added += _add_documents(system, added)
            took_s = time.monotonic() - begun
            stub.set(0.0, tool="knowledge_search")
            try:
                cost = meter.measure(system)
            finally:
                stub.set(0.0)
            first = first or cost
            print(f"{added:,} passages, the last added in {took_s:.0f} s: {cost.compared_to(first)}", flush=True)


def _add_documents(system: System, first: int) -> int:
    """Add a batch of documents; the number of their passages."""
    chance = random.Random(first)
    documents = [
        {
            "source": f"pumps-{first}-{number}.md",
            "text": "\n\n".join(_section(chance, first + SECTIONS * number + each) for each in range(SECTIONS)),
        }
        for number in range(DOCUMENTS)
    ]
    response = httpx.post(
        f"{system.urls[0]}/knowledge/documents",
        json={"documents": documents},
        headers=dict(system.headers),
        timeout=120,
        trust_env=False,
    )
    response.raise_for_status()
    return sum(int(each["passages"]) for each in response.json()["documents"])


def _section(chance: random.Random, number: int) -> str:
    words = " ".join(chance.choices(WORDS, k=40))
    return f"# Pump {number}\n\nThe pressure of pump {number} is {chance.randint(1, 90)} bar. {words}."


def measure_replicas(stub: StubModel, meter: Meter, counts: Sequence[int] = (1, 2, 4)) -> None:
    """The same load on more replicas of Agent."""
    first: Cost | None = None
    for count in counts:
        with _service(
            stub, scaling=dict.fromkeys(("min_replicas", "initial_replicas", "max_replicas"), count)
        ) as system:
            until = time.monotonic() + START_S
            while system.agents() < count:
                if time.monotonic() > until:
                    raise RuntimeError(f"{count} agents are not ready within {START_S:.0f} s")
                time.sleep(0.5)
            cost = meter.measure(system)
            size = system.pss_bytes().total()
        first = first or cost
        print(f"{count} agents: {cost.compared_to(first)}; {size / 1e9:.2f} GB PSS", flush=True)


PARTS = {
    "conversations": measure_conversations,
    "tools": measure_tools,
    "passages": measure_passages,
    "replicas": measure_replicas,
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all by default")
    parser.add_argument("--passages", type=lambda text: [int(each) for each in text.split(",")])
    given = parser.parse_args()
    with ExitStack() as stack:
        stub = stack.enter_context(stub_model())
        meter = Meter(stack.enter_context(fastapi("create_agent", "fastapi_agent", stub.url)))
        for part in given.parts or PARTS:
            print(f"\n{part}", flush=True)
            if part == "passages" and given.passages:
                measure_passages(stub, meter, given.passages)
            else:
                PARTS[part](stub, meter)
