"""No cached answer is older than the documents were when its question came."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING
from uuid import uuid4

from cache_harness import AgentPool

from serve_app.knowledge.document_store import DocumentRecord, DocumentStore
from serve_app.stores.lease import LEASE_MS, Lease
from serve_app.values import Passage, SearchResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_process import AgentProcess
    from redis.asyncio import Redis

    from serve_app.values import Answer, Context

    Open = Callable[..., AgentProcess]

QUESTION = "search it: now"


class Shelf:
    """One document, kept and found as the knowledge base does: what counts is what its record in Redis names."""

    def __init__(self, redis: Redis, tenant: str = "default") -> None:
        self._store = DocumentStore(redis, "serve_app", tenant)
        self._redis = redis
        self._lease = Lease("serve_app:writer", uuid4().hex)
        self.searched = asyncio.Event()
        self.pause_s: Callable[[], float] = lambda: 0

    async def write(self, edition: int) -> None:
        await self._redis.set(self._lease.key, self._lease.holder, px=LEASE_MS)
        record = DocumentRecord("manual", "T", str(edition), passages=1, characters=1, indexed_at=0)
        await self._store.mark_unsettled("d")
        await self._store.put(self._lease, "d", record, {7: 1})
        await self._store.mark_settled("d")

    async def search(self, context: Context, query: str) -> SearchResult:
        await asyncio.sleep(self.pause_s())
        record = (await self._store.records(["d"]))["d"]
        self.searched.set()
        await asyncio.sleep(self.pause_s())
        text = f"edition {record.digest}."
        return SearchResult(passages=[Passage(document_id="d", source="manual", title="T", text=text, score=1)])


def shelved(pool: AgentPool, shelf: Shelf) -> AgentPool:
    for agent in pool.agents:
        agent.retriever.search = shelf.search  # type: ignore[method-assign]
    return pool


def edition(answer: Answer) -> int:
    return int(answer.result.partition("edition ")[2].partition(".")[0])


async def test_a_changed_document_ends_what_rests_on_it(start_agent: Open, redis: Redis) -> None:
    shelf = Shelf(redis)
    pool = shelved(AgentPool(start_agent), shelf)
    for number in range(3):
        await shelf.write(number)
        answers = [await pool.ask(QUESTION) for _ in range(3)]
        assert [edition(each) for each in answers] == [number] * 3
        assert [each.cached for each in answers] == [False, True, True]


async def test_a_document_of_another_tenant_ends_nothing(start_agent: Open, redis: Redis) -> None:
    shelf = Shelf(redis)
    pool = shelved(AgentPool(start_agent), shelf)
    await shelf.write(1)
    await pool.ask(QUESTION)
    await Shelf(redis, "other").write(1)
    assert (await pool.ask(QUESTION)).cached


async def test_a_turn_that_began_before_a_change_and_ends_after_it_keeps_nothing(
    start_agent: Open, redis: Redis
) -> None:
    shelf = Shelf(redis)
    shelf.pause_s = lambda: 0.2
    pool = shelved(AgentPool(start_agent), shelf)
    await shelf.write(1)
    before = asyncio.create_task(pool.ask(QUESTION))
    await shelf.searched.wait()
    waiting = asyncio.create_task(pool.ask(QUESTION))
    while not await redis.keys("serve_app:answer:*:waiting"):  # noqa: ASYNC110 - another turn is waited for
        await asyncio.sleep(0.005)
    await shelf.write(2)
    after = await pool.ask(QUESTION)
    assert (edition(after), after.cached) == (2, False)
    assert (edition(await before), (await before).cached) == (1, False)
    assert edition(await waiting) == 2, "what it waited for was out of date by then"
    last = await pool.ask(QUESTION)
    assert (edition(last), last.cached) == (2, True)


async def test_no_answer_is_older_than_its_question_however_turns_and_changes_meet(
    start_agent: Open, redis: Redis
) -> None:
    chance = random.Random(11)
    shelf = Shelf(redis)
    shelf.pause_s = lambda: chance.random() * 0.02
    pool = shelved(AgentPool(start_agent), shelf)
    await shelf.write(0)
    written, cached = 0, 0

    async def ask() -> None:
        nonlocal cached
        while written < 40:
            oldest = written
            answer = await pool.ask(QUESTION)
            cached += answer.cached
            assert edition(answer) >= oldest

    async def change() -> None:
        nonlocal written
        while written < 40:
            enough, until = cached + chance.randint(0, 5), asyncio.get_running_loop().time() + 1
            while cached < enough and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110 - others count
                await asyncio.sleep(chance.random() * 0.005)
            await shelf.write(written + 1)
            written += 1

    await asyncio.gather(change(), *(ask() for _ in range(8)))
    assert cached > 40, "otherwise nothing was tried"
