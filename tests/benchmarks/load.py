"""Sends turns to a service and prints what came of them as JSON; a process of its own, so that its cost is known apart.

    python -m tests.benchmarks.load URL... --clients 32 --seconds 10 [--stream] [--turns-a-session 10]

Each client sends its next turn when the last one has ended (a closed loop), and begins a new conversation after so many
turns. Clients begin one after another over `--ramp-s` seconds. Two calls with the same `--sessions` and
`--turns-a-session 0` go on with the same conversations, one for each client.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
import uvloop

TIMEOUT_S = 60.0


@dataclass(slots=True)
class Load:
    """The turns of all clients, and what was measured of them."""

    urls: list[str]
    stream: bool
    turns_per_session: int
    """0: each client has one conversation."""
    sessions: str
    """The beginning of the conversations' names."""
    headers: dict[str, str]
    took_s: list[float] = field(default_factory=list)
    """Of each answered turn."""
    first_token_s: list[float] = field(default_factory=list)
    """From the request to the first token, where the answer is streamed."""
    token_delays_s: list[float] = field(default_factory=list)
    """Of each token, since the model sent it."""
    tokens: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    most_in_flight: int = 0
    in_flight: int = 0

    async def run(self, clients: int, seconds: float, ramp_s: float) -> None:
        """Keep so many turns going, for so long after the ramp."""
        until = time.monotonic() + ramp_s + seconds
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        timeout = aiohttp.ClientTimeout(TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as http:
            await asyncio.gather(*(self._client(http, each, until, ramp_s * each / clients) for each in range(clients)))

    async def _client(self, http: aiohttp.ClientSession, number: int, until: float, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        turn = 0
        while time.monotonic() < until:
            session = f"{self.sessions}-{number}-{turn // self.turns_per_session if self.turns_per_session else 0}"
            turn += 1
            await self._turn(http, self.urls[number % len(self.urls)], session)

    async def _turn(self, http: aiohttp.ClientSession, url: str, session: str) -> None:
        body = orjson.dumps({"user_input": "Where is order OD-1?", "session_id": session, "stream": self.stream})
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        begun = time.monotonic()
        try:
            async with http.post(f"{url}/agent/chat", data=body, headers=self.headers) as response:
                if self.stream and response.status == 200:
                    wrong = await self._read_stream(response, begun)
                else:
                    text = await response.read()
                    wrong = _describe(response.status, text)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            wrong = f"{type(error).__name__}: {error}"[:200]
        finally:
            self.in_flight -= 1
        if wrong:
            self.failed[wrong] += 1
            await asyncio.sleep(0.05)
        else:
            self.took_s.append(time.monotonic() - begun)

    async def _read_stream(self, response: aiohttp.ClientResponse, begun: float) -> str:
        """Read the tokens; return what was wrong."""
        event, is_first = b"", True
        async for line in response.content:
            if line.startswith(b"event:"):
                event = line[6:].strip()
            elif line.startswith(b"data:") and event == b"token":
                now = time.monotonic()
                sent = [float(each) for each in orjson.loads(line[5:])["text"].split()]
                if is_first:
                    self.first_token_s.append(now - begun)
                    is_first = False
                self.tokens += len(sent)
                self.token_delays_s += [now - each for each in sent]
            elif line.startswith(b"data:") and event == b"answer":
                return ""
            elif line.startswith(b"data:") and event == b"error":
                return line.decode()[:200]
        return "the stream broke off"


def _describe(status: int, text: bytes) -> str:
    """Return what is wrong with an answer; nothing where it is one."""
    if status == 200 and orjson.loads(text).get("result"):
        return ""
    try:
        error = orjson.loads(text)["error"]
        return f"{status} {error['code']} {error.get('reason', '')}"
    except (ValueError, LookupError, TypeError):
        return f"{status} {text[:100]!r}"


def quantile(values: list[float], share: float) -> float:
    """Return a quantile, 0 of nothing."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def summarize(load: Load, seconds: float) -> dict[str, Any]:
    """Return the figures of a load that took so long."""
    return {
        "turns": len(load.took_s),
        "turns_per_s": len(load.took_s) / seconds,
        "p50_s": quantile(load.took_s, 0.5),
        "p99_s": quantile(load.took_s, 0.99),
        "first_token_p50_s": quantile(load.first_token_s, 0.5),
        "first_token_p99_s": quantile(load.first_token_s, 0.99),
        "token_delay_p50_s": quantile(load.token_delays_s, 0.5),
        "token_delay_p99_s": quantile(load.token_delays_s, 0.99),
        "tokens_per_s": load.tokens / seconds,
        "most_in_flight": load.most_in_flight,
        "failed": dict(load.failed.most_common(5)),
        "failed_turns": load.failed.total(),
    }


async def _main(given: argparse.Namespace) -> None:
    key = os.environ.get("BENCHMARK_KEY")
    headers = {"content-type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    load = Load(given.urls, given.stream, given.turns_a_session, given.sessions, headers)
    begun = time.monotonic()
    await load.run(given.clients, given.seconds, given.ramp_s)
    print(json.dumps(summarize(load, time.monotonic() - begun)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--ramp-s", type=float, default=0.0)
    parser.add_argument("--turns-a-session", type=int, default=10)
    parser.add_argument("--sessions", default=f"bench-{os.getpid()}")
    parser.add_argument("--stream", action="store_true")
    uvloop.run(_main(parser.parse_args()))
