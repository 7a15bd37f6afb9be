"""Starts turns at planned times, whatever becomes of earlier ones, and measures each of them."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import takewhile
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from serve_app.cli.client import is_local, key_headers
from serve_app.cli.turn_client import TurnClient, TurnError, TurnOutcome
from serve_app.llm.openai_compatible.transport import find_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

SEED = 1
"""Of the arrivals: each run with the same rate and duration has the same ones."""
MAX_GAPS = 200_000
"""Gaps between tokens that are stored. Of more, a random sample is."""
KEEP_ALIVE_S = 2.0
"""Below the idle time after which common servers close a connection (5 s), so that no turn meets a closed one."""
PROGRESS_S = 1.0
RECENT_S = 5.0
"""The progress shows percentiles of the turns that ended in the last seconds."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What a load test sends, and how fast."""

    url: str
    rate_per_s: float
    duration_s: float
    stream: bool
    inputs: tuple[str, ...]
    sessions: int | None
    """How many conversations the turns are spread over. None: each turn has its own."""
    max_in_flight: int
    timeout_s: float
    run_id: str
    """Begins the names of the conversations, so that no run continues those of another."""

    @property
    def turns(self) -> int:
        """The number of planned turns."""
        return max(1, round(self.rate_per_s * self.duration_s))

    def arrivals(self) -> list[float]:
        """Return the planned starts in seconds, in order: a Poisson process of `turns` events."""
        chance = random.Random(SEED)  # noqa: S311 - no secret: the same arrivals are wanted again
        return sorted(chance.uniform(0, self.duration_s) for _ in range(self.turns))

    def input_of(self, number: int) -> str:
        """Return the message of a turn."""
        return self.inputs[number % len(self.inputs)]

    def session_of(self, number: int) -> str:
        """Return the conversation of a turn."""
        return f"loadtest-{self.run_id}-{number % self.sessions if self.sessions else number}"


@dataclass(frozen=True, slots=True)
class MeasuredTurn:
    """One turn. All times are seconds since the start of the load."""

    planned_s: float
    started_s: float
    ended_s: float
    first_token_s: float | None
    outcome: TurnOutcome

    @property
    def latency_s(self) -> float:
        """The time since the planned start, so that a late start of the client counts."""
        return self.ended_s - self.planned_s

    @property
    def first_token_latency_s(self) -> float | None:
        """The time from the planned start to the first token, if one came."""
        return None if self.first_token_s is None else self.first_token_s - self.planned_s

    @property
    def is_answered(self) -> bool:
        return self.outcome.error is None

    @property
    def is_sent(self) -> bool:
        """Whether the client could send it at all."""
        return self.outcome.error is None or self.outcome.error.kind != "client_limit"


@dataclass(slots=True)
class TokenGaps:
    """Times between tokens in seconds: all of them, or a uniform random sample of many."""

    count: int = 0
    sample_s: list[float] = field(default_factory=list)
    _chance: random.Random = field(default_factory=lambda: random.Random(SEED))  # noqa: S311 - a sample, no secret

    def add(self, gap_s: float) -> None:
        """Count a gap (algorithm R of reservoir sampling)."""
        self.count += 1
        if len(self.sample_s) < MAX_GAPS:
            self.sample_s.append(gap_s)
        elif (place := self._chance.randrange(self.count)) < MAX_GAPS:
            self.sample_s[place] = gap_s


@dataclass(slots=True)
class Measurements:
    """What a load test has measured so far."""

    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    turns: list[MeasuredTurn] = field(default_factory=list)
    """In the order in which they ended."""
    gaps: TokenGaps = field(default_factory=TokenGaps)
    sent: int = 0
    in_flight: int = 0
    cut_off: int = 0
    """Turns that were in flight when the load test was interrupted."""
    answered: int = 0
    interrupted: bool = False
    elapsed_s: float = 0.0

    @property
    def errors(self) -> int:
        return len(self.turns) - self.answered

    def add(self, turn: MeasuredTurn) -> None:
        self.turns.append(turn)
        self.answered += turn.is_answered

    def recent_latencies_s(self) -> list[float]:
        """Return the latencies of the turns that were answered in the last seconds, sorted."""
        since_s = self.elapsed_s - RECENT_S
        recent = takewhile(lambda turn: turn.ended_s >= since_s, reversed(self.turns))
        return sorted(turn.latency_s for turn in recent if turn.is_answered)


class LoadGenerator:
    """Runs a plan as an open loop: no slow answer delays a turn."""

    def __init__(self, plan: LoadPlan, client: TurnClient, show: Callable[[Measurements], None]) -> None:
        self._plan = plan
        self._client = client
        self._show = show
        self._start = 0.0
        self.measurements = Measurements()

    async def run(self) -> Measurements:
        """Run the load until each turn has ended, or until Ctrl-C."""
        arrivals = self._plan.arrivals()
        self._start = time.monotonic()
        load = asyncio.create_task(self._start_turns(arrivals))
        progress = asyncio.create_task(self._show_progress())
        with _cancelled_by_signal(load):
            await asyncio.wait({load})
        progress.cancel()
        self.measurements.elapsed_s = self._now_s()
        self.measurements.interrupted = load.cancelled()
        if not load.cancelled():
            load.result()
        return self.measurements

    async def _start_turns(self, arrivals: list[float]) -> None:
        async with asyncio.TaskGroup() as turns:
            for number, planned_s in enumerate(arrivals):
                await asyncio.sleep(max(0.0, planned_s - self._now_s()))
                if self.measurements.in_flight < self._plan.max_in_flight:
                    self.measurements.in_flight += 1
                    turns.create_task(self._run_turn(number, planned_s))
                else:
                    self._skip_turn(planned_s)

    async def _run_turn(self, number: int, planned_s: float) -> None:
        started_s = self._now_s()
        self.measurements.sent += 1
        try:
            result = await self._client.send(self._plan.input_of(number), self._plan.session_of(number))
        except asyncio.CancelledError:
            self.measurements.cut_off += 1
            raise
        finally:
            self.measurements.in_flight -= 1
        for gap_s in result.tokens.gaps_s:
            self.measurements.gaps.add(gap_s)
        first_at = result.tokens.first_at
        first_token_s = None if first_at is None else first_at - self._start
        ended_s = result.ended_at - self._start
        self.measurements.add(MeasuredTurn(planned_s, started_s, ended_s, first_token_s, result.outcome))

    def _skip_turn(self, planned_s: float) -> None:
        """Count an arrival that is over the limit; to delay it would close the loop."""
        error = TurnError("client_limit", f"{self._plan.max_in_flight:,} turns in flight")
        now_s = self._now_s()
        self.measurements.add(MeasuredTurn(planned_s, now_s, now_s, None, TurnOutcome(error=error)))

    async def _show_progress(self) -> None:
        with suppress(OSError):  # nobody reads it any more
            while True:
                await asyncio.sleep(PROGRESS_S)
                self.measurements.elapsed_s = self._now_s()
                self._show(self.measurements)

    def _now_s(self) -> float:
        return time.monotonic() - self._start


@contextmanager
def _cancelled_by_signal(task: asyncio.Task[None]) -> Iterator[None]:
    """Cancel the task at Ctrl-C or SIGTERM, where the loop may handle signals."""
    loop = asyncio.get_running_loop()
    handled: list[signal.Signals] = []
    for each in (signal.SIGINT, signal.SIGTERM):
        with suppress(ValueError, RuntimeError, NotImplementedError):  # a loop in another thread than the first
            loop.add_signal_handler(each, task.cancel)
            handled.append(each)
    try:
        yield
    finally:
        for each in handled:
            loop.remove_signal_handler(each)


@asynccontextmanager
async def open_turn_client(plan: LoadPlan) -> AsyncIterator[TurnClient]:
    """Open a client with unlimited connections and the key of the running command."""
    proxy, proxy_auth = (None, None) if is_local(plan.url) else find_proxy(URL(plan.url))
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ttl_dns_cache=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity", **key_headers()},
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
        proxy=proxy,
        proxy_auth=proxy_auth,
    ) as session:
        yield TurnClient(session, plan.url, plan.timeout_s, stream=plan.stream)
