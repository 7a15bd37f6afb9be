"""The index is whole after whatever happened while it was written."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from serve_app.errors import DeadlineExceeded, Overloaded, StoreUnavailable
from serve_app.knowledge.chunking import make_index_entries
from serve_app.knowledge.document_store import PASSAGES, DocumentRecord, DocumentStore
from serve_app.knowledge.ingestion import hold_write_lock
from serve_app.stores.lease import Lease
from serve_app.values import Document

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from serve_app.knowledge.chunking import IndexEntry
    from serve_app.knowledge.index import KnowledgeIndex
    from serve_app.values import Context

WORDS = ["disk", "clock", "printer", "kernel", "password", "磁盘", "时钟", "打印机", "内核", "密码"]


def document(source: str, *words: str) -> Document:
    sections = (f"## About {word}\n\n" + f"This section is about {word}. " * 9 for word in words)
    return Document(source=source, text=f"# {source}\n\n" + "\n\n".join(sections))


async def stored(index: KnowledgeIndex, tenant: str) -> list[dict[str, Any]]:
    """All of the tenant's passages in Milvus, whether they count or not."""
    collection = index._passages._collection

    async def query(client: Any) -> Any:
        fields = ["id", "document_id", "digest", "sparse"]
        return await client.query(collection.name, filter=f'tenant == "{tenant}"', output_fields=fields, limit=10_000)

    return list(await collection.call(query, 10))


async def assert_whole(index: KnowledgeIndex, redis: Redis, tenant: str) -> None:
    """Milvus has what the records name, and the frequencies are those of a recount."""
    prefix = f"{index._settings.collection}:{tenant}"
    records = {key: json.loads(value) for key, value in (await redis.hgetall(f"{prefix}:documents")).items()}
    rows = await stored(index, tenant)
    assert Counter((row["document_id"], row["digest"]) for row in rows) == {
        (key, record["digest"]): record["passages"] for key, record in records.items()
    }
    recounted = Counter(str(term) for row in rows for term in row["sparse"])
    if rows:
        recounted[PASSAGES] = len(rows)
    assert {key: int(value) for key, value in (await redis.hgetall(f"{prefix}:frequencies")).items()} == recounted
    assert await redis.smembers(f"{prefix}:unsettled") == set()
    assert await redis.zcard(f"{prefix}:sources") == len(records) == await redis.hlen(f"{prefix}:terms")


async def test_the_frequencies_are_those_of_a_recount_after_anything(
    index: KnowledgeIndex, redis: Redis, context: Context
) -> None:
    chance = random.Random(7)
    names = ["a", "b", "c", "d"]
    for _ in range(15):
        listed = (await index.documents(context, 0, 10)).documents
        if listed and chance.random() < 0.3:
            await index.remove(context, chance.choice(listed).id)
        else:
            batch = [document(chance.choice(names), *chance.sample(WORDS, chance.randint(1, 5))) for _ in range(2)]
            await index.add(context, batch)
        await assert_whole(index, redis, context.tenant)
    for each in (await index.documents(context, 0, 10)).documents:
        await index.remove(context, each.id)
    await assert_whole(index, redis, context.tenant)


STEPS = [
    ("_passages", "put", "before"),
    ("_passages", "put", "after"),
    ("_passages", "delete_other_versions", "before"),
    ("_passages", "delete_other_versions", "after"),
]


def break_once(part: Any, method: str, when: str) -> None:
    """The method raises once, before or after it has worked."""
    working = getattr(part, method)

    async def breaking(*args: Any) -> None:
        setattr(part, method, working)
        if when == "after":
            await working(*args)
        raise StoreUnavailable("the process died here")

    setattr(part, method, breaking)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[2]} {step[1]}")
@pytest.mark.parametrize("first", [None, ["disk", "clock"]], ids=["added", "replaced"])
async def test_an_interrupted_ingest_is_finished_by_sending_it_again(
    open_index: Callable[..., KnowledgeIndex],
    redis: Redis,
    context: Context,
    step: tuple[str, str, str],
    first: list[str] | None,
) -> None:
    index = open_index(min_score=0)
    await index.add(context, [document("other", "printer"), *([document("a", *first)] if first else [])])
    part, method, when = step
    break_once(getattr(index, part), method, when)
    with pytest.raises(StoreUnavailable):
        await index.add(context, [document("a", "disk", "kernel")])
    found = " ".join(each.text for each in (await index.search(context, "disk kernel clock printer")).passages)
    assert "printer" in found
    assert ("clock" in found) == (method == "put" and first is not None)
    assert ("kernel" in found) == (method == "delete_other_versions")
    await index.add(context, [document("a", "disk", "kernel")])
    await assert_whole(index, redis, context.tenant)
    found = " ".join(each.text for each in (await index.search(context, "disk kernel clock printer")).passages)
    assert "kernel" in found
    assert "clock" not in found


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_interrupted_removal_is_finished_by_the_next_writer(
    index: KnowledgeIndex, redis: Redis, context: Context, when: str
) -> None:
    [added, _] = await index.add(context, [document("a", "disk"), document("other", "printer")])
    break_once(index._passages, "delete_other_versions", when)
    with pytest.raises(StoreUnavailable):
        await index.remove(context, added.id)
    assert (await index.search(context, "disk")).passages == []
    await index.add(context, [document("b", "clock")])
    await assert_whole(index, redis, context.tenant)


async def test_a_document_that_cannot_be_split_does_not_stop_the_others(
    open_index: Callable[..., KnowledgeIndex], context: Context
) -> None:
    async def make_entries(each: Document) -> list[IndexEntry]:
        if each.source == "bad":
            raise KeyError("/secret/path")
        return make_index_entries(each)

    index = open_index(make_entries)
    sent = [
        document("a", "disk"),
        document("bad", "clock"),
        Document(source="empty", text="..."),
        document("z", "kernel"),
    ]
    results = await index.add(context, sent)
    assert [each.status for each in results] == ["added", "failed", "failed", "added"]
    assert [each.reason for each in results[1:3]] == [
        "The document could not be split",
        "The document has no text to search for",
    ]
    assert (await index.documents(context, 0, 10)).total == 2


async def test_two_replicas_that_index_at_once_take_turns(
    open_index: Callable[..., KnowledgeIndex], redis: Redis, context: Context
) -> None:
    one = open_index()
    other = open_index(collection=one._settings.collection)
    batches = [[document(f"{i}-{j}", *WORDS[j : j + 3]) for j in range(3)] for i in range(4)]
    await asyncio.gather(*((one, other)[i % 2].add(context, batch) for i, batch in enumerate(batches)))
    await assert_whole(one, redis, context.tenant)
    assert (await other.documents(context, 0, 1)).total == 12


@pytest.mark.parametrize("behind_s", [0, 3000])
async def test_a_writer_waits_for_another_no_longer_than_its_deadline(
    index: KnowledgeIndex, redis: Redis, contexts: Callable[..., Context], behind_s: float
) -> None:
    context = contexts("default", seconds=0.5, behind_s=behind_s)
    async with hold_write_lock(redis, index._settings.collection, context.deadline):
        with pytest.raises(Overloaded):
            await index.add(context, [document("a", "disk")])


async def test_a_lease_is_renewed_while_it_is_held_and_free_afterwards(
    redis: Redis, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.stores.lease.LEASE_MS", 200)
    monkeypatch.setattr("serve_app.stores.lease.RENEW_EVERY_S", 0.05)
    async with hold_write_lock(redis, "c", context.deadline) as lease:
        await asyncio.sleep(0.5)
        assert await redis.get(lease.key) == lease.holder
    assert await redis.get(lease.key) is None


async def test_a_writer_that_has_lost_its_lease_changes_nothing(redis: Redis) -> None:
    registry = DocumentStore(redis, "c", "t")
    await redis.set("c:writer", "another")
    record = DocumentRecord("source", "title", "digest", 1, 10, 0.0)
    with pytest.raises(StoreUnavailable):
        await registry.put(Lease("c:writer", "me"), "id", record, {1: 1})
    assert await redis.keys() == ["c:writer"]


@pytest.mark.parametrize("behind_s", [0, 3000])
async def test_a_batch_ends_at_its_deadline_and_goes_on_when_it_is_sent_again(
    open_index: Callable[..., KnowledgeIndex], redis: Redis, contexts: Callable[..., Context], behind_s: float
) -> None:
    async def make_entries(each: Document) -> list[IndexEntry]:
        await asyncio.sleep(0.4)
        return make_index_entries(each)

    index = open_index(make_entries)
    batch = [document(str(i), "disk") for i in range(5)]
    with pytest.raises(DeadlineExceeded):
        await index.add(contexts("default", seconds=1.5, behind_s=behind_s), batch)
    done = (await index.documents(contexts("default"), 0, 10)).total
    assert 0 < done < 5
    statuses = [each.status for each in await index.add(contexts("default"), batch)]
    assert statuses == ["unchanged"] * done + ["added"] * (5 - done)
    await assert_whole(index, redis, "default")


async def test_a_document_that_the_store_refuses_fails_alone(
    open_index: Callable[..., KnowledgeIndex], context: Context
) -> None:
    async def make_entries(each: Document) -> list[IndexEntry]:
        made = make_index_entries(each)
        return [replace(one, text="x" * 100_000) for one in made] if each.source == "poison" else made

    index = open_index(make_entries)
    batch = [document(source, "disk") for source in ("a", "poison", "b")]
    assert [each.status for each in await index.add(context, batch)] == ["added", "failed", "added"]
    assert {each.source for each in (await index.documents(context, 0, 10)).documents} == {"a", "b"}
    assert (await index.add(context, [document("c", "disk")]))[0].status == "added"


async def test_a_record_that_cannot_be_read_hides_no_other_and_its_document_can_be_sent_again(
    open_index: Callable[..., KnowledgeIndex], context: Context, redis: Any
) -> None:
    index = open_index()
    poison, other = await index.add(context, [document("poison", "disk"), document("other", "clock")])
    prefix = f"{index._settings.collection}:{context.tenant}"
    await redis.hset(f"{prefix}:documents", poison.id, "{")
    assert [each.id for each in (await index.documents(context, 0, 10)).documents] == [other.id]
    assert {each.source for each in (await index.search(context, "clock")).passages} == {"other"}
    assert (await index.add(context, [document("poison", "disk")]))[0].status == "added"
    assert {each.source for each in (await index.search(context, "disk")).passages} == {"poison"}
    await redis.hset(f"{prefix}:terms", poison.id, "[]")
    assert (await index.add(context, [document("poison", "printer")]))[0].status == "replaced"
