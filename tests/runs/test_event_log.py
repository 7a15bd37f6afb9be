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
    asked = context()
    said = asyncio.Event()

    async def work(run: Run) -> Answer:
        for number in range(20):
            run.stream(Token(text=f"{number} "))
            said.set()
            await asyncio.sleep(0.02)
        return answer(run)

    async def read(after: int) -> list[int]:
        await said.wait()
        return [event.id async for event in log.events(asked, asked.run_id, after)]

    await log.claim(asked, request(), None)
    readers = [asyncio.create_task(read(number % 3)) for number in range(30)]
    events = await start(work).events(asked, request())
    ids = [event.id for event in events]
    assert len(ids) > 3  # on a busy machine words are written together, four times a second at least
    assert [await each for each in readers] == [ids[number % 3 :] for number in range(30)]


async def test_a_run_that_is_over_and_fully_read_has_nothing_more(start: Start, log: RunEventLog) -> None:
    asked = context()
    events = await start().events(asked, request())
    assert [event async for event in log.events(asked, asked.run_id, events[-1].id)] == []
    assert (await log.run(asked, asked.run_id)).last_event_id == events[-1].id


async def test_the_steps_outlive_the_tokens(start: Start, log: RunEventLog, redis: Redis) -> None:
    asked = context()
    await start(tokens_ttl_s=1).events(asked, request())
    await asyncio.sleep(1.2)
    assert [event.name async for event in log.events(asked, asked.run_id)] == ["run", "answer"]
    assert await redis.ttl(f"serve_app:run:{{default:{asked.run_id}}}:steps") > 80_000


async def test_requests_with_one_key_are_one_run(log: RunEventLog) -> None:
    contexts = [context() for _ in range(20)]
    claims = await asyncio.gather(*(log.claim(each, request(), "key") for each in contexts))
    assert sum(claim.fresh for claim in claims) == 1
    assert len({claim.run_id for claim in claims}) == 1


async def test_a_claim_whose_reply_was_lost_is_made_again_without_harm(log: RunEventLog) -> None:
    asked = context()
    for _ in range(2):
        assert await log.claim(asked, request(), "key") == Claim(run_id=asked.run_id, fresh=True)


async def test_a_key_that_came_with_another_body_is_refused(log: RunEventLog) -> None:
    await log.claim(context(), request(), "key")
    with pytest.raises(KeyReused):
        await log.claim(context(), request(text="other"), "key")


async def test_tenants_have_keys_and_runs_of_their_own(log: RunEventLog) -> None:
    asked = context()
    await log.claim(asked, request(), "key")
    other = context(tenant="other")
    assert (await log.claim(other, request(), "key")).fresh
    for reading in (log.run(other, asked.run_id), log.cancel(other, asked.run_id)):
        with pytest.raises(NotFound):
            await reading
    with pytest.raises(NotFound):
        await anext(log.events(other, asked.run_id))


async def test_a_run_tells_its_answer(start: Start, log: RunEventLog) -> None:
    asked = context()
    events = await start().events(asked, request())
    run = await log.run(asked, asked.run_id)
    assert (run.status, run.answer, run.session_id) == ("success", events[-1].data, "s")
