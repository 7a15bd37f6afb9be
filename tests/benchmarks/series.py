"""Counts the time series of the metrics page after many turns and many restarts.

    python tests/benchmarks/series.py [--turns 10000] [--restarts 50]

Starts the service on a Ray of its own with two processes per deployment and the offline model, has it answer turns of
every kind (with a tool, a search, neither, unreadable), 16 at a time and each of a session of its own, and kills one
process after the other meanwhile. Prints the series of `GET /metrics`, and those of Ray's own page of the node, before,
on the way and after. A turn that is refused is asked again; all of them are answered.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import yaml

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "service")]

from running_service import ROOT, Service, beside, started  # noqa: E402 - after the path

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "series"
AT_ONCE = 16
WARM_UP = 300
KILLED = ("Agent", "Tools", "Retriever", "Agent", "Ingress")
QUESTIONS = ("Where is order OD-{:08}?", "How is a file restored, step {}?", "Hello number {}", "订单OD-{:08}到哪了?")
LOOKS = 5
SETTLED_S = 30
"""Ray drops what a dead process reported some seconds after its death."""


class Load:
    """Turns, and after each so many of them the death of a process; None lets all live."""

    def __init__(self, http: httpx.AsyncClient, service: Service, turns_per_death: int | None = None) -> None:
        self._http = http
        self._service = service
        self._per_death = turns_per_death
        self._numbers = itertools.count()
        self.answered = 0
        self.killed = 0
        self.refused = 0

    async def go(self, turns: int) -> None:
        left = iter(range(turns))
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._converse(left))

    async def _converse(self, left: Iterator[int]) -> None:
        for _ in left:
            number = next(self._numbers)
            text = QUESTIONS[number % len(QUESTIONS)].format(number)
            body = {"user_input": text, "session_id": f"series-{number}"}
            if number % 50 == 0:
                await self._http.post(f"{self._service.url}/agent/chat", content=b"{")
            while not await self._answered(body):
                self.refused += 1
                await asyncio.sleep(0.2)
            self.answered += 1
            if self._per_death and self.answered % self._per_death == 0:
                self._kill()

    def _kill(self) -> None:
        name = KILLED[self.killed % len(KILLED)]
        random.choice(self._service.processes(f"ServeReplica:{NAME}:{name}")).kill()
        self.killed += 1

    async def _answered(self, body: dict[str, str]) -> bool:
        try:
            response = await self._http.post(f"{self._service.url}/agent/chat", json=body)
        except httpx.TransportError:
            return False
        if response.status_code < 500:
            response.raise_for_status()
        return response.is_success


async def look(http: httpx.AsyncClient, url: str) -> tuple[int, int]:
    """The series of the service's page, and of Ray's."""
    import ray

    [node] = ray.nodes()
    pages = [f"{url}/metrics", f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"]
    own, rays = [(await http.get(page)).raise_for_status().text for page in pages]
    return tuple(sum(1 for line in page.splitlines() if line and line[0] != "#") for page in (own, rays))


async def watched(service: Service, turns: int, restarts: int) -> None:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
        await Load(http, service).go(WARM_UP)
        await asyncio.sleep(SETTLED_S)
        print("before: {} series of the service's page, {} of Ray's".format(*await look(http, service.url)))
        load = Load(http, service, turns // restarts if restarts else None)
        for number in range(LOOKS):
            await load.go(turns // LOOKS)
            seen = await look(http, service.url)
            print("{} turns: {} of the service's, {} of Ray's".format((number + 1) * turns // LOOKS, *seen))
        await asyncio.sleep(SETTLED_S)
        seen = await look(http, service.url)
        print(
            "after {} turns ({} refusals asked again), {} restarts: {} and {}".format(
                load.answered, load.refused, load.killed, *seen
            )
        )


def _main(turns: int, restarts: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        configuration = {
            "orders": {"file": str(ROOT / "configs" / "orders.json")},
            "tools": {"order_query": {"function": "serve_app.tools.orders:order_query"}},
        }
        first = Path(folder) / "first.yaml"
        first.write_text(yaml.safe_dump(configuration))
        two = dict.fromkeys(("Ingress", "Agent", "Tools", "Retriever"), 2)
        with started(Path(folder), first) as service, beside(service, NAME, configuration, **two) as running:
            asyncio.run(watched(running, turns, restarts))


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=10_000)
    parser.add_argument("--restarts", type=int, default=50)
    arguments = parser.parse_args()
    _main(arguments.turns, arguments.restarts)
