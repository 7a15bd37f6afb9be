"""Sends more turns than the service may run, and measures its answers.

    python tests/service/flood.py URL --rate 300 --seconds 60

A process of its own, because it is to take nothing from the service's; prints what it found as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

MOST = 60_000
"""Turns that one flood asks for."""


@dataclass
class Flood:
    """Turns that were asked for at `url`."""

    url: str
    key: str | None = None
    answered: list[tuple[float, float]] = field(default_factory=list)
    """When each answer came, and how long it took."""
    refused: list[float] = field(default_factory=list)
    """How long each refusal took."""
    wrong: list[str] = field(default_factory=list)
    """What was neither an answer nor a refusal as it ought to be."""
    sent: int = 0

    async def ask(self, client: aiohttp.ClientSession) -> bool:
        """One turn; whether it was answered."""
        self.sent += 1
        begun = time.perf_counter()
        body = {"user_input": "talk", "session_id": f"flood-{time.time_ns()}-{self.sent}"}
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            async with client.post(f"{self.url}/agent/chat", json=body, headers=headers) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            self.wrong.append(f"{type(error).__name__}: {error}")
            return False
        took = time.perf_counter() - begun
        if response.status == 200 and json.loads(text)["result"]:
            self.answered.append((time.perf_counter(), took))
            return True
        if _is_refusal(response, text):
            self.refused.append(took)
        else:
            self.wrong.append(f"{response.status} {text[:200]}")
        return False

    async def at_a_rate(self, client: aiohttp.ClientSession, per_second: float, seconds: float) -> None:
        """So many a second, whatever comes of them; returns when all have been answered or refused."""
        begun, sent, tasks = time.perf_counter(), 0, set[asyncio.Task[bool]]()
        while (passed := time.perf_counter() - begun) < seconds:
            for _ in range(min(int(passed * per_second) - sent, MOST)):
                sent += 1
                task = asyncio.create_task(self.ask(client))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.sleep(0.005)
        self.ended = time.perf_counter()
        await asyncio.gather(*tasks)

    async def so_many_at_once(self, client: aiohttp.ClientSession, at_once: int, seconds: float) -> None:
        """As many all the time."""
        until = time.perf_counter() + seconds

        async def go_on() -> None:
            while time.perf_counter() < until:
                await self.ask(client)

        await asyncio.gather(*(go_on() for _ in range(at_once)))


def _is_refusal(response: aiohttp.ClientResponse, text: str) -> bool:
    try:
        error = json.loads(text)["error"]
    except (ValueError, LookupError, TypeError):
        return False
    retry_after = response.headers.get("Retry-After", "")
    codes = {503: "overloaded", 429: "rate_limited"}
    return codes.get(response.status) == error["code"] and retry_after.isdigit() and 1 <= int(retry_after) <= 60


def quantile(values: list[float], share: float) -> float:
    """Seconds; 0 of nothing."""
    return sorted(values)[int(share * (len(values) - 1))] if values else 0.0


async def flooded(url: str, key: str | None, rate: float, seconds: float, at_once: int) -> dict[str, Any]:
    """A peak of `at_once` turns, a flood, and how soon after its end a turn is answered as it was at the peak."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(30), trust_env=False) as client:
        await Flood(url, key).so_many_at_once(client, at_once, 3)
        peak_s = max(5.0, min(15.0, seconds / 4))
        peak = Flood(url, key)
        begun = time.perf_counter()
        await peak.so_many_at_once(client, at_once, peak_s)
        peak_per_s = len(peak.answered) / (time.perf_counter() - begun)
        flood, begun = Flood(url, key), time.perf_counter()
        flooding = asyncio.create_task(flood.at_a_rate(client, rate, seconds))
        await asyncio.sleep(seconds)
        normal_s = 1.3 * quantile([took for _, took in peak.answered], 0.99)
        recovered_s = await _recovered(Flood(url, key), client, normal_s)
        await flooding
    settled = [at for at, _ in flood.answered if begun + 3 <= at <= begun + seconds]
    return {
        "peak_per_s": peak_per_s,
        "peak_p99_s": quantile([took for _, took in peak.answered], 0.99),
        "sent": flood.sent,
        "answered": len(flood.answered),
        "refused": len(flood.refused),
        "wrong": flood.wrong[:5] + peak.wrong[:5],
        "goodput_per_s": len(settled) / (seconds - 3),
        "admitted_p50_s": quantile([took for _, took in flood.answered], 0.5),
        "admitted_p99_s": quantile([took for _, took in flood.answered], 0.99),
        "refused_p50_s": quantile(flood.refused, 0.5),
        "refused_p99_s": quantile(flood.refused, 0.99),
        "recovered_s": recovered_s,
    }


async def only(url: str, key: str | None, rate: float, seconds: float) -> dict[str, int]:
    """A flood alone."""
    flood = Flood(url, key)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(30), trust_env=False) as client:
        await flood.at_a_rate(client, rate, seconds)
    answered, refused = len(flood.answered), len(flood.refused)
    return {"sent": flood.sent, "answered": answered, "refused": refused, "wrong": len(flood.wrong)}


async def _recovered(probe: Flood, client: aiohttp.ClientSession, normal_s: float) -> float:
    """Seconds from now until the first of five turns in a row, a fifth of a second apart, that took no longer."""
    begun = time.perf_counter()

    async def one(after: float) -> tuple[float, bool]:
        await asyncio.sleep(after)
        sent_at = time.perf_counter()
        well = await probe.ask(client) and time.perf_counter() - sent_at <= normal_s
        return sent_at - begun, well

    probes = await asyncio.gather(*(one(0.2 * number) for number in range(75)))
    for number in range(len(probes) - 5):
        if all(well for _, well in probes[number : number + 5]):
            return probes[number][0]
    return float("inf")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--key", help="of a tenant; none where none are asked for")
    parser.add_argument("--rate", type=float, default=300)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument(
        "--only", action="store_true", help="neither a peak before it nor a look at what comes after it"
    )
    given = parser.parse_args()
    if given.only:
        print(json.dumps(asyncio.run(only(given.url, given.key, given.rate, given.seconds))))
    else:
        figures = flooded(given.url, given.key, given.rate, given.seconds, given.at_once)
        print(json.dumps(asyncio.run(figures)))
