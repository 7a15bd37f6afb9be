"""Measures what a hanging tool costs the turns that do not use it.

    python tests/benchmarks/hanging_tool.py [--turns 600]

Starts the service on a Ray of its own, with a model that takes 0.3 s a call, and keeps 40 turns of four tool calls each
going, beside 10 users who have the tool in question called every 12 s. It is well, and hangs for its 10 s, by turns,
three times each, with its breaker out of the way; prints how long the turns of the 40 took.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

import httpx
import yaml

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "service")]

from running_service import ROOT, START_S, Service, beside, started  # noqa: E402 - after the path
from task_model import TaskModel, served, task  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHERS, USERS = 40, 10
TOOL_S, EVERY_S = 10, 12
"""The same number of calls, whether the tool is well or hangs."""
ROUNDS = 3
WARM_UP = 80
PERCENT = 99
FAULT = {"target": "tool:watch", "mode": "timeout", "rate": 1, "for_s": 3600}


def configuration(model: TaskModel) -> dict[str, object]:
    """The tools of the tasks; `watch` is a quick one, until a fault has it hang."""
    tools: dict[str, dict[str, object]] = {
        each: {"function": f"traced_tools:{each}"} for each in ("price_of", "stock_of")
    }
    tools["notify"] = {"function": "traced_tools:notify", "effect": "idempotent"}
    tools["book"] = {"function": "traced_tools:book", "effect": "effect"}
    tools["watch"] = {
        "function": "traced_tools:price_of",
        "timeout_s": TOOL_S,
        "attempts": 1,
        "breaker": {"failures": 1000},
    }
    return {"model": {"name": "openai:tasks", "base_url": model.url}, "tools": tools, "faults": {"enabled": True}}


class Load:
    """Fifty turns at a time."""

    def __init__(self, http: httpx.AsyncClient, turns: int) -> None:
        self._http = http
        self._turns = turns
        self._sessions = iter(range(10**9))

    async def measured(self) -> list[float]:
        """Seconds that each of so many turns took that do not use the tool."""
        left = iter(range(self._turns))
        users = [asyncio.create_task(self._users()) for _ in range(USERS)]
        try:
            async with asyncio.TaskGroup() as group:
                others = [group.create_task(self._others(left)) for _ in range(OTHERS)]
        finally:
            for each in users:
                each.cancel()
            await asyncio.gather(*users, return_exceptions=True)
        return [took_s for each in others for took_s in each.result()]

    async def _others(self, left: Iterator[int]) -> list[float]:
        took_s = []
        for _ in left:
            begun = time.perf_counter()
            answer = await self._turn("plainly")
            took_s.append(time.perf_counter() - begun)
            if answer["status"] != "success":
                raise RuntimeError(f"a turn that does not use the tool ended with {answer}")
        return took_s

    async def _users(self) -> None:
        while True:
            await asyncio.gather(self._turn("watch"), asyncio.sleep(EVERY_S))

    async def _turn(self, how: str) -> dict[str, object]:
        name = f"load{next(self._sessions)}-1"
        body = {"user_input": task(name, how), "session_id": name}
        response = await self._http.post("/agent/chat", json=body)
        answer: dict[str, object] = response.raise_for_status().json()
        return answer


async def compared(service: Service, turns: int) -> tuple[list[float], list[float]]:
    """What turns took, while the tool was well and while it hung."""
    limits = httpx.Limits(max_connections=100)
    async with httpx.AsyncClient(base_url=service.url, timeout=90, limits=limits, trust_env=False) as http:
        await Load(http, WARM_UP).measured()
        load, well, hanging = Load(http, turns // ROUNDS), [], []
        for _ in range(ROUNDS):
            well += await load.measured()
            (await http.put("/admin/faults", json=FAULT)).raise_for_status()
            await asyncio.sleep(2)
            hanging += await load.measured()
            (await http.delete("/admin/faults")).raise_for_status()
            await asyncio.sleep(2)
    return well, hanging


def _main(turns: int) -> None:
    with tempfile.TemporaryDirectory() as folder, served(TaskModel()) as model:
        first = Path(folder) / "first.yaml"
        first.write_text(yaml.safe_dump({"orders": {"file": str(ROOT / "configs" / "orders.json")}}))
        with started(Path(folder), first) as service, beside(service, "hanging", configuration(model)) as running:
            running.wait_until_ready(START_S)
            well, hanging = asyncio.run(compared(running, turns))
    print(f"{len(well)} and {len(hanging)} turns, {OTHERS} at a time, beside {USERS} that use the tool")
    for name, took_s in (("well", well), ("hanging", hanging)):
        print(f"tool {name:8} p50 {_share(took_s, 50):.2f} s   p{PERCENT} {_share(took_s, PERCENT):.2f} s")
    print(f"p{PERCENT} with the tool hanging: {_share(hanging, PERCENT) / _share(well, PERCENT):.2f} of that without")


def _share(values: list[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=600)
    _main(parser.parse_args().turns)
