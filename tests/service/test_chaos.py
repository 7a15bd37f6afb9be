"""Every turn gets its own answer once, while replicas and Redis are killed."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from statistics import quantiles
from typing import TYPE_CHECKING

import pytest
from redis import Redis
from two_replicas import DEPLOYMENTS, Pair, kill

from serve_app.stores.redis_keys import RunKeys

if TYPE_CHECKING:
    from following_client import FollowedTurn, FollowingClient

SESSIONS = 20
KILL_EVERY_S = 5.0
LASTS_S, SEED = 120, 4
PAUSE_S = 0.2
"""Between two turns of a session."""
SETTLING_S = 2.0
"""For so long after an ingress was killed the proxy may still send it requests."""
NEXT_EVENT_WITHIN_S = 10
HOWS = ("plainly", "with the manual", "plainly", "with the manual")


@dataclass
class Killer:
    """Kills one of two every few seconds, and Redis once."""

    pair: Pair
    chance: random.Random
    kills: list[tuple[float, str]] = field(default_factory=list)
    _bag: list[str] = field(default_factory=list)

    async def go_on(self, until: float) -> None:
        rounds = int((until - time.monotonic()) / KILL_EVERY_S)
        redis_in = self.chance.randrange(rounds // 3, 2 * rounds // 3)
        for each in range(rounds):
            await asyncio.sleep(KILL_EVERY_S / 2)
            if each == redis_in:
                self.kills.append((await asyncio.to_thread(self.pair.kill_redis), "Redis"))
            await asyncio.sleep(KILL_EVERY_S / 2)
            await self._one()

    async def _one(self) -> None:
        """The next deployment in a random order that has both its replicas."""
        for _ in range(10):
            for each in self._next():
                if await asyncio.to_thread(self.pair.whole, each):
                    self._bag.remove(each)
                    victims = await asyncio.to_thread(self.pair.replicas, each)
                    self.kills.append((kill(self.chance.choice(victims)), each))
                    return
            await asyncio.sleep(0.3)

    def _next(self) -> list[str]:
        if len(self._bag) < len(DEPLOYMENTS):
            self._bag += self.chance.sample(DEPLOYMENTS, len(DEPLOYMENTS))
        return list(dict.fromkeys(self._bag))

    def of(self, deployment: str) -> list[float]:
        return [at for at, name in self.kills if name == deployment]


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_every_turn_is_answered_once_whatever_is_killed(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    await asyncio.to_thread(pair.wait_until_whole)
    chance = random.Random(SEED)
    killer = Killer(pair, chance)
    begun = time.monotonic()
    until = begun + LASTS_S
    async with pair.following() as client, asyncio.TaskGroup() as group:
        killing = group.create_task(killer.go_on(until))
        talking = [group.create_task(_converse(client, f"chaos{each}", until, each)) for each in range(SESSIONS)]
    assert killing.done()
    turns = [turn for each in talking for turn in each.result()]
    gaps = _gaps(turns, killer.of("Agent"))
    with capsys.disabled():
        print(f"\n{_figures(turns, killer, gaps)}; {_adopted(pair, turns)} runs changed their agent")
        for gap, turn in sorted(gaps, key=lambda each: each[0])[-3:]:
            print(f"  {turn.name} waited {gap:.2f} s, after {len(turn.tries)} tries")
        for turn in turns:
            for first, last, how in turn.tries:
                print(f"  {turn.name} {first - begun:.1f}-{last - begun:.1f} s: {how}")
    faults = [wrong for turn in turns for wrong in turn.wrong()]
    faults += _visible(turns, killer.of("Ingress")) + pair.model.odd
    faults += _badly_done(pair, turns) + _badly_remembered(pair, turns)
    assert faults == []
    assert set(DEPLOYMENTS) | {"Redis"} == {name for _, name in killer.kills}
    assert _share([gap for gap, _ in gaps], 99) < NEXT_EVENT_WITHIN_S


async def _converse(client: FollowingClient, session: str, until: float, number: int) -> list[FollowedTurn]:
    """One session's turns; every other session has them streamed."""
    turns: list[FollowedTurn] = []
    await asyncio.sleep(number / SESSIONS)
    while time.monotonic() < until:
        name = f"{session}-{len(turns) + 1}"
        how = HOWS[len(turns) % len(HOWS)]
        turns.append(await client.turn(name, how, f"key-{name}", stream=number % 2 == 0))
        await asyncio.sleep(PAUSE_S)
    return turns


def _gaps(turns: list[FollowedTurn], killed: list[float]) -> list[tuple[float, FollowedTurn]]:
    """From the death of an agent to the next event of each run that it held."""
    recoveries = [(at, turn) for turn in turns for at in turn.recovered_at]
    return [(at - max((one for one in killed if one < at), default=0), turn) for at, turn in recoveries]


def _visible(turns: list[FollowedTurn], killed: list[float]) -> list[str]:
    """The failed tries that no death of an ingress explains, one for each that died meanwhile."""
    visible = []
    for turn in turns:
        for begun, ended, how in turn.tries:
            if not any(begun - SETTLING_S < at < ended for at in killed):
                visible.append(f"{turn.name}: {how}")
        deaths = sum(turn.begun - SETTLING_S < at < turn.ended for at in killed)
        if len(turn.tries) > deaths:
            visible.append(f"{turn.name}: {len(turn.tries)} tries for {deaths} deaths")
    return visible


def _badly_done(pair: Pair, turns: list[FollowedTurn]) -> list[str]:
    """The effects that did not happen once, where they are not said to be unknown; the idempotent under two keys."""
    done = {name: count for name, count in pair.traced("book").items() if name.startswith("chaos")}
    bad = [
        f"{turn.name} was booked {done.get(turn.name, 0)} times"
        for turn in turns
        if not (done.get(turn.name) == 1 or (turn.unknown and not done.get(turn.name)))
    ]
    keys = Counter(line.split()[0] for line in pair.traced("notify"))
    bad += [f"{name} was notified under {count} keys" for name, count in keys.items() if count > 1]
    return bad + sorted(set(done) - {turn.name for turn in turns})


def _badly_remembered(pair: Pair, turns: list[FollowedTurn]) -> list[str]:
    counts = Counter(turn.name.rpartition("-")[0] for turn in turns)
    bad = []
    with pair.client() as client:
        for session, count in counts.items():
            remembered = client.get(f"/agent/sessions/{session}").json()["turns"]
            if remembered != count:
                bad.append(f"{session} remembers {remembered} of {count} turns")
    return bad


def _adopted(pair: Pair, turns: list[FollowedTurn]) -> int:
    keys = [RunKeys("default", turn.answer["run_id"]).run for turn in turns]
    with Redis.from_url(pair.redis_url, decode_responses=True) as redis:
        return sum(redis.hget(key, "adoptions") != "0" for key in keys)


def _figures(turns: list[FollowedTurn], killer: Killer, gaps: list[tuple[float, FollowedTurn]]) -> str:
    waited = [gap for gap, _ in gaps]
    took = [turn.ended - turn.begun for turn in turns]
    killed = dict(Counter(name for _, name in killer.kills))
    tried = sum(len(turn.tries) for turn in turns)
    unknown = sum(turn.unknown for turn in turns)
    return (
        f"{len(turns)} turns of {SESSIONS} sessions, p50 {_share(took, 50):.2f} s, p99 {_share(took, 99):.2f} s; "
        f"killed {killed}; {tried} tries again, {unknown} effects unknown; from an agent's death to the next event of "
        f"{len(gaps)} runs p50 {_share(waited, 50):.2f} s, p99 {_share(waited, 99):.2f} s"
    )


def _share(values: list[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else max(values, default=0)
