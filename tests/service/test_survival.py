"""Runs outlive their clients and their processes. With two replicas of each deployment."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from following_client import FollowedTurn, body, frames
from redis import Redis
from two_replicas import NAME, Pair, kill, until

from serve_app.stores.redis_keys import RunKeys, SessionKeys

if TYPE_CHECKING:
    from following_client import FollowingClient, Frame
    from httpx import AsyncClient

AT_ONCE_S = 3.0
"""Within this time a cancelled run has stopped."""
BETWEEN_S = 0.05
"""Between two new streams: a router knows by then how busy the last one's replica is."""
FREED_WITHIN_S = 12.0
"""A lease lapses after 2 s, the run is found within 0.5 s, and its answer takes 4.3 s to be said again."""
DOCUMENTS = ("documents", "terms", "sources", "frequencies", "unsettled", "version")
"""What is known of documents (serve_app/knowledge/document_store.py) stays until they are removed; so does the `layout`
of their collection (`CollectionCheck` in serve_app/knowledge/index.py)."""


async def _rest(http: AsyncClient, run_id: str, after: str) -> list[Frame]:
    """The frames after the frame `after`."""
    url, last = f"/agent/runs/{run_id}/events", {"Last-Event-ID": after}
    async with http.stream("GET", url, headers=last) as response:
        assert response.status_code in {200, 204}, await response.aread()
        return [frame async for frame in frames(response)]


async def _beginning(http: AsyncClient, name: str, how: str, count: int) -> list[Frame]:
    """The first frames of a new stream, whose client then leaves."""
    seen: list[Frame] = []
    async with http.stream("POST", "/agent/chat", json={**body(name, how), "stream": True}) as response:
        assert response.status_code == 200, await response.aread()
        async for frame in frames(response):
            seen.append(frame)
            if len(seen) == count:
                break
    return seen


def _bytes(seen: list[Frame]) -> bytes:
    return b"".join(frame.raw for frame in seen)


async def test_a_stream_that_is_cut_anywhere_and_resumed_loses_and_repeats_nothing(pair: Pair) -> None:
    async with pair.following() as client:

        async def cut(count: int) -> None:
            name = f"cut{count}-1"
            seen = await _beginning(client.http, name, "with the manual", count)
            run_id = seen[0].data["run_id"]
            seen += await _rest(client.http, run_id, seen[-1].id)
            assert _bytes(seen) == _bytes(await _rest(client.http, run_id, "0"))
            turn = FollowedTurn(name, "with the manual", frames=seen, answer=seen[-1].data)
            assert turn.wrong() == []

        uncut = await client.turn("cut0-1", "with the manual", "cut0", stream=True)
        assert uncut.wrong() == []
        assert len(uncut.frames) > 15
        await asyncio.gather(*(cut(count) for count in range(1, len(uncut.frames))))


async def test_a_finished_stream_resumes_after_any_frame_through_both_ingresses(pair: Pair) -> None:
    async with pair.following() as client:
        turn = await client.turn("finished-1", "with the manual", "finished", stream=True)
        assert turn.run_id
        before = _served(pair)
        boundaries = [each for each in range(len(turn.frames) + 1) for _ in "ab"]
        rests = await asyncio.gather(*(_rest(client.http, turn.run_id, str(each)) for each in boundaries))
    for each, rest in zip(boundaries, rests, strict=True):
        assert _bytes(rest) == _bytes(turn.frames[each:])
    assert sum(count > before.get(ingress, 0) for ingress, count in _served(pair).items()) == 2


def _served(pair: Pair) -> dict[str, int]:
    """How many streams each ingress has resumed."""
    logs = (pair.data_dir / "access").rglob(f"replica_{NAME}_Ingress_*")
    return {log.name: log.read_text().count("/events 20") for log in logs}


async def test_twenty_requests_at_once_with_one_key_are_one_run(pair: Pair) -> None:
    async with pair.following() as client:

        async def ask(how: str = "plainly") -> Any:
            key = {"Idempotency-Key": "twenty"}
            return await client.http.post("/agent/chat", json=body("twenty-1", how), headers=key)

        responses = await asyncio.gather(*(ask() for _ in range(20)))
        assert [response.status_code for response in responses] == [200] * 20
        assert len({response.content for response in responses}) == 1
        assert FollowedTurn("twenty-1", "plainly", answer=responses[0].json()).wrong() == []
        assert pair.traced("book")["twenty-1"] == 1
        assert (await client.http.get("/agent/sessions/twenty")).json()["turns"] == 1
        other = await ask("with the manual")
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("name", "how"), [("modelling-1", "slow talk"), ("watching-1", "watch")], ids=["the model speaks", "a tool works"]
)
async def test_a_run_that_is_cancelled_stops_at_once_wherever_it_is(pair: Pair, name: str, how: str) -> None:
    async with pair.following() as client, pair.following() as other:
        seen: list[Frame] = []

        async def follow() -> None:
            async with client.http.stream("POST", "/agent/chat", json={**body(name, how), "stream": True}) as response:
                seen.extend([frame async for frame in frames(response)])

        following = asyncio.create_task(follow())
        run_id = await _run_of(pair, name)
        await until(lambda: name in pair.model.requested and (how != "watch" or _watched(pair, name)), 10, "it works")
        await asyncio.sleep(0.3)
        cancelled_at, cancelled_time = time.monotonic(), time.time()
        response = await other.http.post(f"/agent/runs/{run_id}/cancel")
        assert (response.status_code, response.json()["status"]) == (200, "cancelled")
        await following
    assert seen[-1].event == "cancelled"
    assert seen[-1].at - cancelled_at < AT_ONCE_S
    if how == "watch":
        await asyncio.sleep(AT_ONCE_S)
        assert max(_watched(pair, name)) - cancelled_time < AT_ONCE_S
    else:
        await until(lambda: name in pair.model.abandoned, AT_ONCE_S, "the model still speaks")
        assert pair.model.abandoned[name] - cancelled_at < AT_ONCE_S


def _watched(pair: Pair, name: str) -> list[float]:
    return [float(line.split()[1]) for line in pair.traced("watch") if line.startswith(f"{name} ")]


async def _run_of(pair: Pair, name: str) -> str:
    """The run that has the turn of the session that the task is of."""
    lease = SessionKeys("default", name.rpartition("-")[0]).lease
    with Redis.from_url(pair.redis_url, decode_responses=True) as redis:
        await until(lambda: redis.hget(lease, "run"), 10, f"{name} has not begun")
        return RunKeys.of(str(redis.hget(lease, "run"))).run_id


async def _ended(http: AsyncClient, run_id: str, seconds: float) -> dict[str, Any]:
    """The run, polled until it has ended."""
    give_up = time.monotonic() + seconds
    while True:
        run: dict[str, Any] = (await http.get(f"/agent/runs/{run_id}")).json()
        if run["status"] not in {"queued", "running"}:
            return run
        assert time.monotonic() < give_up, run
        await asyncio.sleep(0.1)


async def _begun(http: AsyncClient, name: str, how: str) -> str:
    """A run that nobody waits for."""
    response = await http.post("/agent/chat", json=body(name, how), headers={"Prefer": "respond-async"})
    assert response.status_code == 202, response.text
    return str(response.json()["run_id"])


async def test_a_client_that_does_not_wait_polls_the_answer(pair: Pair) -> None:
    async with pair.following() as client:
        run_id = await _begun(client.http, "polled-1", "with the manual")
        run = await _ended(client.http, run_id, 20)
    assert (run["status"], run["adoptions"]) == ("success", 0)
    assert FollowedTurn("polled-1", "with the manual", answer=run["answer"]).wrong() == []


@pytest.mark.long
async def test_a_second_message_is_refused_where_it_is_to_be_rejected(pair: Pair) -> None:
    assert pair.settings["runs"] == {"second_message": "reject"}
    async with pair.following() as client:
        first = asyncio.create_task(client.turn("reject-1", "slow talk", "reject", stream=True))
        await _run_of(pair, "reject-1")
        second = await client.http.post("/agent/chat", json=body("reject-1", "plainly"))
        assert (second.status_code, second.json()["error"]["code"]) == (409, "session_busy")
        assert (await first).wrong() == []


async def _speaking(pair: Pair, client: FollowingClient, session: str, count: int) -> list[asyncio.Task[FollowedTurn]]:
    """So many streams, of each of which a part of the answer has been said."""
    names = [f"{session}{each}-1" for each in range(count)]
    await asyncio.to_thread(pair.wait_until_whole)
    talking = []
    for name in names:
        talking.append(asyncio.create_task(client.turn(name, "slow", name, stream=True)))
        await asyncio.sleep(BETWEEN_S)
    await until(
        lambda: all(pair.model.requested.count(name) == 3 for name in names), 20, "they have not all come so far"
    )
    await asyncio.sleep(1)
    return talking


async def test_when_an_agent_is_killed_its_streams_go_on_connected(pair: Pair) -> None:
    async with pair.following() as client:
        talking = await _speaking(pair, client, "orphan", 8)
        kill(await asyncio.to_thread(pair.busiest_agent))
        turns = await asyncio.gather(*talking)
    recovered = [turn for turn in turns if turn.recovered_at]
    assert recovered
    for turn in turns:
        assert (turn.wrong(), turn.tries) == ([], [])
        assert pair.traced("book")[turn.name] == 1
    for turn in recovered:
        again = next(each for each, frame in enumerate(turn.frames) if frame.event == "run" and frame.data["recovered"])
        assert "token" in {frame.event for frame in turn.frames[:again]}
        assert next(frame for frame in turn.frames[again:] if frame.event == "token").data["restart"]
        assert pair.model.requested.count(turn.name) == 4, "a finished step was run again"


async def test_when_an_agent_and_an_ingress_are_killed_the_client_resumes_the_run_that_another_adopted(
    pair: Pair,
) -> None:
    async with pair.following() as client:
        talking = await _speaking(pair, client, "both", 12)
        agent, ingress = await asyncio.to_thread(lambda: (pair.busiest_agent(), pair.replicas("Ingress")[0]))
        kill(ingress)
        kill(agent)
        turns = await asyncio.gather(*talking)
    assert [turn for turn in turns if turn.recovered_at and turn.tries]
    for turn in turns:
        assert turn.wrong() == []
        assert pair.traced("book")[turn.name] == 1
        assert len(turn.tries) <= 1


async def test_an_agent_that_wakes_up_while_another_runs_its_runs_writes_nothing_more(pair: Pair) -> None:
    sessions = [f"asleep{each}" for each in range(8)]
    await asyncio.to_thread(pair.wait_until_whole)
    async with pair.following() as client:
        runs = [await _begun(client.http, f"{session}-1", "slow") for session in sessions]
        await until(
            lambda: all(pair.model.requested.count(f"{each}-1") == 3 for each in sessions), 20, "they have not begun"
        )
        sleeper = await asyncio.to_thread(pair.busiest_agent)
        kill(sleeper, signal.SIGSTOP)
        try:
            await until(
                lambda: any(pair.model.requested.count(f"{each}-1") == 4 for each in sessions), 10, "none is adopted"
            )
        finally:
            kill(sleeper, signal.SIGCONT)
        ended = [await _ended(client.http, run_id, 20) for run_id in runs]
        records = _read_redis(pair, runs, sessions)
        assert {run["adoptions"] for run in ended} <= {0, 1}
        assert 1 in {run["adoptions"] for run in ended}
        for run, session, (log, meta, exchanges) in zip(ended, sessions, records, strict=True):
            assert FollowedTurn(f"{session}-1", "slow", answer=run["answer"]).wrong() == []
            assert pair.traced("book")[f"{session}-1"] == 1
            assert (len(exchanges), log["ended_by"], log["last"]) == (1, meta["epoch"], str(run["last_event_id"]))
            assert int(meta["epoch"]) == 1 + run["adoptions"]
        turns = await asyncio.gather(*(client.turn(f"{each}-2", "plainly", each, stream=True) for each in sessions))
        assert [(turn.wrong(), turn.tries) for turn in turns] == [([], [])] * len(turns)
        again = _read_redis(pair, runs, sessions)
    assert sleeper.is_running()
    assert [log for log, _, _ in again] == [log for log, _, _ in records]
    assert [exchanges[:1] for _, _, exchanges in again] == [exchanges for _, _, exchanges in records]


def _read_redis(
    pair: Pair, runs: list[str], sessions: list[str]
) -> list[tuple[dict[str, Any], dict[str, str], list[str]]]:
    """What Redis has of each run with its events, of its session's epoch, and of its session's exchanges."""
    records = []
    with Redis.from_url(pair.redis_url, decode_responses=True) as redis:
        for run_id, session_id in zip(runs, sessions, strict=True):
            run, session = RunKeys("default", run_id), SessionKeys("default", session_id)
            log = {**redis.hgetall(run.run), "steps": redis.xrange(run.steps), "tokens": redis.xrange(run.tokens)}
            records.append((log, redis.hgetall(session.meta), redis.lrange(session.exchanges, 0, -1)))
    return records


async def test_the_streams_of_an_agent_that_freezes_go_on_where_their_runs_do(pair: Pair) -> None:
    async with pair.following() as client:
        talking = await _speaking(pair, client, "frozen", 8)
        sleeper = await asyncio.to_thread(pair.busiest_agent)
        kill(sleeper, signal.SIGSTOP)
        _, waiting = await asyncio.wait(talking, timeout=FREED_WITHIN_S)
        kill(sleeper, signal.SIGCONT)
        turns = await asyncio.gather(*talking)
    assert [(turn.wrong(), turn.tries) for turn in turns] == [([], [])] * len(turns)
    assert len(waiting) == 0


@pytest.mark.long
async def test_an_update_of_every_replica_loses_nothing_of_ten_streams(pair: Pair) -> None:
    updated = asyncio.Event()

    async def converse(client: FollowingClient, session: str) -> list[FollowedTurn]:
        turns: list[FollowedTurn] = []
        while not updated.is_set():
            name = f"{session}-{len(turns) + 1}"
            turns.append(await client.turn(name, "slow with the manual", name, stream=True))
        return turns

    async with pair.following() as client:
        talking = [asyncio.create_task(converse(client, f"updated{each}")) for each in range(10)]
        await asyncio.sleep(1)
        await asyncio.to_thread(pair.redeploy, second_message="cancel_running")
        updated.set()
        turns = [turn for each in talking for turn in await each]
    assert [wrong for turn in turns for wrong in turn.wrong()] == []
    assert [turn.tries for turn in turns if turn.tries] == []
    booked = pair.traced("book")
    assert {booked[turn.name] for turn in turns} == {1}


@pytest.mark.long
async def test_a_second_message_ends_the_first_where_it_is_to_cancel_it(pair: Pair) -> None:
    await asyncio.to_thread(pair.with_runs, second_message="cancel_running")
    async with pair.following() as client:
        first = asyncio.create_task(
            client.http.post("/agent/chat", json={**body("cancelling-1", "slow talk"), "stream": True})
        )
        await _run_of(pair, "cancelling-1")
        second = await client.turn("cancelling-1", "plainly", "second", stream=True)
        assert (second.wrong(), second.tries) == ([], [])
        assert "event: cancelled" in (await first).text.splitlines()
        assert (await client.http.get("/agent/sessions/cancelling")).json()["turns"] == 1


def test_the_model_was_never_sent_a_broken_or_a_mixed_up_conversation(pair: Pair) -> None:
    assert pair.model.odd == []


def test_whatever_happened_every_key_in_redis_has_an_end(pair: Pair) -> None:
    lasting = {f"{collection}:default:{each}" for collection in ("serve_app", NAME) for each in DOCUMENTS}
    lasting |= {f"{collection}:layout" for collection in ("serve_app", NAME)}
    for database in ("/0", "/1"):
        with Redis.from_url(pair.redis_url.removesuffix("/1") + database, decode_responses=True) as redis:
            keys = set(redis.scan_iter(count=1000))
            assert database == "/0" or keys
            assert {key for key in keys - lasting if redis.ttl(key) == -1} == set()
