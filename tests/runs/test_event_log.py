"""The event log reads the same for every follower, and never across tenants."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from worker_process import answer, context, request

from serve_app.errors import KeyReused, NotFound
from serve_app.values import Answer, Claim, Token

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis
    from worker_process import WorkerProcess

    from serve_app.runs.event_log import RunEventLog
    from serve_app.runs.run import Run

    Start = Callable[..., WorkerProcess]


async def test_any_number_of_readers_follow_a_run_as_it_happens(start: Start, log: RunEventLog) -> None:
    turn_context = context()
    written = asyncio.Event()

    async def work(run: Run) -> Answer:
        for number in range(20):
            run.stream(Token(text=f"{number} "))
            written.set()
            await asyncio.sleep(0.02)
        return answer(run)

    async def read(after: int) -> list[int]:
        await written.wait()
        return [event.id async for event in log.events(turn_context, turn_context.run_id, after)]

    await log.claim(turn_context, request(), None)
    readers = [asyncio.create_task(read(number % 3)) for number in range(30)]
    events = await start(work).events(turn_context, request())
    ids = [event.id for event in events]
    assert len(ids) > 3  # on a busy machine words are written together, four times a second at least
    assert [await each for each in readers] == [ids[number % 3 :] for number in range(30)]


async def test_a_run_that_is_over_and_fully_read_has_nothing_more(start: Start, log: RunEventLog) -> None:
    turn_context = context()
    events = await start().events(turn_context, request())
    assert [event async for event in log.events(turn_context, turn_context.run_id, events[-1].id)] == []
    assert (await log.run(turn_context, turn_context.run_id)).last_event_id == events[-1].id


async def test_the_steps_outlive_the_tokens(start: Start, log: RunEventLog, redis: Redis) -> None:
    turn_context = context()
    await start(tokens_ttl_s=1).events(turn_context, request())
    await asyncio.sleep(1.2)
    assert [event.name async for event in log.events(turn_context, turn_context.run_id)] == ["run", "answer"]
    assert await redis.ttl(f"serve_app:run:{{default:{turn_context.run_id}}}:steps") > 80_000


async def test_requests_with_one_key_are_one_run(log: RunEventLog) -> None:
    contexts = [context() for _ in range(20)]
    claims = await asyncio.gather(*(log.claim(each, request(), "key") for each in contexts))
    assert sum(claim.fresh for claim in claims) == 1
    assert len({claim.run_id for claim in claims}) == 1


async def test_a_claim_whose_reply_was_lost_is_made_again_without_harm(log: RunEventLog) -> None:
    turn_context = context()
    for _ in range(2):
        assert await log.claim(turn_context, request(), "key") == Claim(run_id=turn_context.run_id, fresh=True)


async def test_a_key_that_came_with_another_body_is_refused(log: RunEventLog) -> None:
    await log.claim(context(), request(), "key")
    with pytest.raises(KeyReused):
        await log.claim(context(), request(text="other"), "key")


async def test_tenants_have_keys_and_runs_of_their_own(log: RunEventLog) -> None:
    turn_context = context()
    await log.claim(turn_context, request(), "key")
    other = context(tenant="other")
    assert (await log.claim(other, request(), "key")).fresh
    for reading in (log.run(other, turn_context.run_id), log.cancel(other, turn_context.run_id)):
        with pytest.raises(NotFound):
            await reading
    with pytest.raises(NotFound):
        await anext(log.events(other, turn_context.run_id))


async def test_a_run_tells_its_answer(start: Start, log: RunEventLog) -> None:
    turn_context = context()
    events = await start().events(turn_context, request())
    run = await log.run(turn_context, turn_context.run_id)
    assert (run.status, run.answer, run.session_id) == ("success", events[-1].data, "s")
