"""What do metrics, logs and traces cost the running service?

    python tests/benchmarks/observing_cost.py [--turns 200] [--rounds 7]

Starts three of it side by side on a Ray of its own, each of one process per deployment, with the offline model: one
that keeps no metrics and writes no logs, one as it is by default, and one that traces a tenth of its turns as well, to
a collector of each kind. Each in turn is given turns with a tool call, 16 at a time; prints the turns per second of
each as a share of the first one's in the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import httpx
import yaml

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "service")]

from collectors import langsmith, otlp  # noqa: E402 - after the path
from running_service import ROOT, Service, beside, started  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_ONCE = 16
WARM_UP = 100
QUIET = {"observability": {"metrics": False, "steps": False}}
TRACED = {"observability": {"trace_sampling": 0.1}}
SHARE = {"as it is": 0.95, "traced at 10 %": 0.90}
"""What is demanded."""


async def per_second(http: httpx.AsyncClient, url: str, turns: int, sessions: Iterator[int]) -> float:
    """Turns that end in a second."""
    left = iter(range(turns))

    async def converse() -> None:
        for _ in left:
            number = next(sessions)
            body = {"user_input": f"Where is order OD-{number:08}?", "session_id": f"cost-{number}"}
            response = await http.post(f"{url}/agent/chat", json=body)
            if response.raise_for_status().json()["status"] != "success":
                raise RuntimeError(response.text)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(converse())
    return turns / (time.perf_counter() - begun)


async def measured(services: dict[str, Service], turns: int, rounds: int) -> dict[str, list[float]]:
    """Turns per second of each service in each round; who comes first changes from round to round."""
    found: dict[str, list[float]] = {name: [] for name in services}
    sessions = iter(range(10**8))
    async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
        for service in services.values():
            await per_second(http, service.url, WARM_UP, sessions)
        for number in range(rounds):
            names = list(services)
            for name in names[number % 3 :] + names[: number % 3]:
                found[name].append(await per_second(http, services[name].url, turns, sessions))
    return found


def _main(turns: int, rounds: int) -> None:
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
            "nothing": stack.enter_context(beside(service, "quiet", quiet, silent)),
            "as it is": stack.enter_context(beside(service, "default", configuration)),
            "traced at 10 %": stack.enter_context(beside(service, "traced", {**configuration, **TRACED}, traced)),
        }
        found = asyncio.run(measured(services, turns, rounds))
    base = found["nothing"]
    for name, rates in found.items():
        shares = [rate / first for rate, first in zip(rates, base, strict=True)]
        wanted = f", at least {SHARE[name]:.0%} is wanted" if name in SHARE else ""
        spread = f"{min(shares):.0%} to {max(shares):.0%} in single rounds"
        print(f"{name:15} {median(rates):5.1f} turns/s, {median(shares):.1%} of nothing's ({spread}{wanted})")


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    _main(given.turns, given.rounds)
