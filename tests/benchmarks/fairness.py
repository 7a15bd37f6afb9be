"""Measures how much longer one tenant waits while another floods the service.

    python tests/benchmarks/fairness.py [--seconds 40] [--rate 300]

Starts the service on a Ray of its own, with a model that takes half a second to one and a half, and places for six
turns; makes a key for each of two tenants. One asks for three turns every two seconds, alone, then while the other one
asks for 300 a second (`--rate`): a hundred times its share, which is three. Prints the p99 of the first tenant's turns.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import httpx
import yaml

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "service")]

from flood import Flood, quantile  # noqa: E402 - after the path
from overload import KEY_NAME  # noqa: E402
from running_service import started  # noqa: E402
from slow_model import slow_model  # noqa: E402

from tests.benchmarks.systems import production  # noqa: E402

PLACES = {"max_turns": 6, "max_waiting": 12, "max_wait_s": 5}
MODEST_PER_S = 1.5
WANTED = 1.3


def key_of(url: str, admin: str, tenant: str) -> str:
    """A key of the tenant, newly made."""
    order = {"tenant": tenant, "scopes": ["chat"]}
    headers = {"Authorization": f"Bearer {admin}"}
    response = httpx.post(f"{url}/admin/keys", json=order, headers=headers, trust_env=False)
    key: str = response.raise_for_status().json()["key"]
    return key


async def modest(url: str, key: str, seconds: float) -> Flood:
    """The turns of the tenant that asks for little."""
    flood = Flood(url, key)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30), trust_env=False) as client:
        await flood.at_a_rate(client, MODEST_PER_S, seconds)
    return flood


def print_p99(name: str, flood: Flood) -> float:
    """The p99 of its turns, which is printed with the others of its figures."""
    p50, p99 = (quantile([took for _, took in flood.answered], share) for share in (0.5, 0.99))
    print(f"{name}: {len(flood.answered)} answered, {len(flood.refused)} refused, p50 {p50:.2f} s, p99 {p99:.2f} s")
    return p99


def _main(seconds: float, rate: float) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ.update(production(folder))
        os.environ[KEY_NAME] = admin = secrets.token_urlsafe(32)
        model = stack.enter_context(slow_model(spread_s=0.5))
        configuration = {
            "model": {"name": "openai:slow", "base_url": model, "api_key_env": "STUB_KEY"},
            "admission": PLACES,
            "access": {"admin_key_env": KEY_NAME},
        }
        (folder / "fairness.yaml").write_text(yaml.safe_dump(configuration))
        url = stack.enter_context(started(folder, folder / "fairness.yaml")).url
        first, second = (key_of(url, admin, tenant) for tenant in ("modest", "greedy"))
        asyncio.run(modest(url, first, 5))
        alone = print_p99("alone ", asyncio.run(modest(url, first, seconds)))
        script = [sys.executable, str(TESTS / "service" / "flood.py"), url, "--key", second]
        command = [*script, "--only", "--rate", str(rate), "--seconds", str(seconds + 5)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as greedy:
            beside = print_p99("beside", asyncio.run(modest(url, first, seconds)))
            print(f"the other: {greedy.communicate(timeout=seconds + 60)[0].strip()}")
    print(f"p99 beside the other is {beside / alone:.2f} of that alone, wanted {WANTED} at most")


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--rate", type=float, default=300)
    given = parser.parse_args()
    _main(given.seconds, given.rate)
