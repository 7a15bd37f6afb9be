"""Measures what rude clients cost the polite ones.

    python tests/benchmarks/rude_clients.py [--turns 400]

Starts the service on a Ray of its own, with Serve's proxies guarded, and keeps eight polite clients asking; alone, and
beside each kind of rude ones: 200 sockets whose headers drip, 200 whose bodies drip (a byte a second), 100 that ask for
a stream and do not read it, one after another with 10,000 headers, and two that send bodies of 100 MB. Prints the p99
of the polite ones, and what became of the rude ones. Everything is on loopback, and ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import quantiles

import httpx
import yaml

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "service")]

from rude_client_kinds import KINDS, rudely  # noqa: E402 - after the path
from running_service import GUARDS, ROOT, Service, started  # noqa: E402

POLITE = 8
WARM_UP = 80
ROUNDS = 3
"""Alone and beside the rude ones by turns, so that what else the machine does meets both."""


async def polite(url: str, turns: int) -> list[float]:
    """Seconds that each of so many turns took."""
    left, took_s = iter(range(turns)), []

    async def one(number: int, http: httpx.AsyncClient) -> None:
        for turn in left:
            body = {"user_input": "Where is OD-20240502?", "session_id": f"polite-{number}-{turn % 50}"}
            begun = time.perf_counter()
            (await http.post("/agent/chat", json=body)).raise_for_status()
            took_s.append(time.perf_counter() - begun)

    async with httpx.AsyncClient(base_url=url, timeout=90, trust_env=False) as http, asyncio.TaskGroup() as group:
        for number in range(POLITE):
            group.create_task(one(number, http))
    return took_s


async def compared(service: Service, turns: int) -> None:
    await polite(service.url, WARM_UP)
    for kind in KINDS:
        alone: list[float] = []
        beside: list[float] = []
        for _ in range(ROUNDS):
            alone += await polite(service.url, turns // ROUNDS)
            async with rudely(service.url, kind) as outcomes:
                beside += await polite(service.url, turns // ROUNDS)
            await asyncio.sleep(1)
        ratio = _p99(beside) / _p99(alone)
        outcomes_text = ", ".join(f"{count} {what}" for what, count in outcomes.items()) or "nothing said"
        figures = f"p99 {_p99(alone) * 1000:4.0f} ms alone, {_p99(beside) * 1000:4.0f} ms beside"
        print(f"{kind:15} {figures}: {ratio:.2f} ({outcomes_text})", flush=True)


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[98]


def _main(turns: int) -> None:
    os.environ.update(GUARDS)
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "first.yaml"
        first.write_text(yaml.safe_dump({"orders": {"file": str(ROOT / "configs" / "orders.json")}}))
        with started(Path(folder), first) as service:
            headers = {"X-Request-Timeout-Seconds": "0.001"}
            body = {"user_input": "Where is OD-20240502?", "session_id": "s1"}
            with service.client() as client:
                print("asked for a millisecond:", client.post("/agent/chat", json=body, headers=headers).status_code)
            asyncio.run(compared(service, turns))


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=400)
    _main(parser.parse_args().turns)
