"""A follower stays with its run, whatever becomes of the replicas."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from worker_process import context, request

from serve_app.errors import AgentUnavailable, ModelUnavailable, NotFound, Overloaded
from serve_app.runs.failover import SILENCE_S, FailoverAgent
from serve_app.values import Answer, RunEvent, RunRecord, RunStarted, Token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from serve_app.values import ChatRequest, Context

ANSWER = Answer(result="x", session_id="s", run_id="r", model="m")
LOG = [
    RunEvent(id=1, data=RunStarted(run_id="r")),
    RunEvent(id=2, data=Token(text="a")),
    RunEvent(id=3, data=Token(text="b")),
    RunEvent(id=4, data=ANSWER),
]
GONE = AgentUnavailable("gone")


class Replicas:
    """Each call meets the next of `ends`: so many events, and then an error, or the end of what is run there."""

    def __init__(self, *ends: tuple[int, Exception | None]) -> None:
        self.ends = list(ends)
        self.afters: list[int] = []

    async def turn(self, context: Context, request: ChatRequest, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        self.afters.append(after)
        until, error = self.ends.pop(0)
        for event in LOG[after:until]:
            yield event
        if error:
            raise error


class Log:
    last = 0

    async def run(self, context: Context, run_id: str) -> RunRecord:
        if not self.last:
            raise NotFound("There is no run")
        return RunRecord(run_id=run_id, session_id="s", status="running", created_at=0, last_event_id=self.last)

    async def events(self, context: Context, run_id: str, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        for event in LOG[after:]:
            yield event


async def _followed(agent: Any, seconds: float = 20, *, stream: bool = True) -> list[RunEvent]:
    surviving = FailoverAgent(agent, Log())  # type: ignore[arg-type]
    return [event async for event in surviving.turn(context(seconds=seconds), request(stream=stream))]


@pytest.mark.parametrize(
    ("ends", "afters"),
    [
        ([(4, None)], [0]),
        ([(0, GONE), (4, None)], [0, 0]),
        ([(2, GONE), (4, None)], [0, 2]),
        ([(1, GONE), (0, GONE), (2, GONE), (4, None)], [0, 1, 1, 2]),
        ([(2, None)], [0]),
        ([(0, None)], [0]),
        ([(3, GONE), (3, None)], [0, 3]),
        ([(2, GONE), (0, Overloaded("full"))], [0, 2]),
    ],
)
async def test_every_event_comes_once_and_in_order(ends: list[tuple[int, Exception | None]], afters: list[int]) -> None:
    agent = Replicas(*ends)
    assert await _followed(agent) == LOG
    assert agent.afters == afters


async def test_without_a_stream_a_run_that_goes_on_elsewhere_gives_its_last_event_only() -> None:
    assert await _followed(Replicas((0, None)), stream=False) == LOG[-1:]


@pytest.mark.parametrize("error", [Overloaded("full"), ModelUnavailable("misconfigured")])
async def test_a_refusal_is_not_asked_for_again(error: Exception) -> None:
    agent = Replicas((0, error))
    with pytest.raises(type(error)):
        await _followed(agent)
    assert agent.afters == [0]


class Frozen(Replicas):
    """Tells two events, and then nothing any more."""

    closed = False

    async def turn(self, context: Context, request: ChatRequest, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        try:
            for event in LOG[:2]:
                yield event
            await asyncio.sleep(30)
            for event in LOG[2:]:
                yield event
        finally:
            self.closed = True


@pytest.mark.looptime
@pytest.mark.parametrize(("logged", "after_s"), [(4, SILENCE_S), (3, SILENCE_S), (2, 30), (0, 30)])
async def test_a_replica_that_falls_silent_is_left_when_the_log_has_news(logged: int, after_s: float) -> None:
    agent, log = Frozen(), Log()
    log.last = logged
    begun = asyncio.get_running_loop().time()
    surviving = FailoverAgent(agent, log)  # type: ignore[arg-type]
    assert [event async for event in surviving.turn(context(), request())] == LOG
    assert asyncio.get_running_loop().time() - begun == pytest.approx(after_s, abs=0.1)
    assert agent.closed


class Thoughtful(Replicas):
    """Tells nothing for a while, and then everything."""

    async def turn(self, context: Context, request: ChatRequest, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        await asyncio.sleep(SILENCE_S + 0.5)
        for event in LOG:
            yield event


class Stuck(Log):
    """A log that is waited for in vain."""

    async def run(self, context: Context, run_id: str) -> RunRecord:
        await asyncio.sleep(30)
        raise NotFound("There is no run")


@pytest.mark.looptime
async def test_what_a_replica_tells_does_not_wait_for_a_look_at_the_log() -> None:
    begun = asyncio.get_running_loop().time()
    surviving = FailoverAgent(Thoughtful(), Stuck())  # type: ignore[arg-type]
    assert [event async for event in surviving.turn(context(), request())] == LOG
    assert asyncio.get_running_loop().time() - begun == pytest.approx(SILENCE_S + 0.5, abs=0.1)


async def test_replicas_that_stay_away_are_given_up_before_the_deadline() -> None:
    agent = Replicas(*[(0, GONE)] * 100)
    begun = time.time()
    with pytest.raises(AgentUnavailable):
        await _followed(agent, seconds=1.2)
    assert time.time() - begun < 1.2
    assert 3 < len(agent.afters) < 10
