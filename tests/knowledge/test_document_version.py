"""What a search finds changes with the version of the documents only."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from serve_app.errors import StoreUnavailable
from serve_app.stores.redis_keys import documents_version_key
from serve_app.values import Document

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from serve_app.knowledge.index import KnowledgeIndex
    from serve_app.values import Context


def manual(word: str, source: str = "manual") -> Document:
    return Document(source=source, text=f"# Kettle\n\nThe kettle boils {word}. " + f"It boils {word} each time. " * 12)


async def version(redis: Redis, index: KnowledgeIndex, tenant: str = "default") -> str | None:
    found: str | None = await redis.get(documents_version_key(index._settings.collection, tenant))
    return found


async def test_each_change_gives_a_version_of_its_own_to_its_tenant_and_to_no_other(
    index: KnowledgeIndex, redis: Redis, contexts: Callable[[str], Context]
) -> None:
    ours, theirs = contexts("default"), contexts("other")
    await index.add(theirs, [manual("quietly")])
    others, seen = await version(redis, index, "other"), [await version(redis, index)]
    [added] = await index.add(ours, [manual("slowly")])
    seen.append(await version(redis, index))
    await index.add(ours, [manual("quickly")])
    seen.append(await version(redis, index))
    await index.add(ours, [manual("quickly")])
    assert await version(redis, index) == seen[-1], "the same document once more changes nothing"
    await index.remove(ours, added.id)
    seen.append(await version(redis, index))
    assert len(set(seen)) == 4
    assert await version(redis, index, "other") == others


async def test_a_search_finds_the_same_for_as_long_as_the_version_is_the_same(
    open_index: Callable[..., KnowledgeIndex], redis: Redis, context: Context
) -> None:
    index = open_index(min_score=0)
    await index.add(context, [manual("never")])
    found: dict[str | None, set[str]] = {}
    done = asyncio.Event()

    async def search() -> None:
        while not done.is_set():
            before = await version(redis, index)
            passages = (await index.search(context, "kettle boils")).passages
            if before == await version(redis, index):
                found.setdefault(before, set()).add(" ".join(sorted(each.text for each in passages)))

    searching = [asyncio.create_task(search()) for _ in range(3)]
    [added] = await index.add(context, [manual("slowly")])
    await index.add(context, [manual("quickly", source="other")])
    await index.remove(context, added.id)
    latest = await version(redis, index)
    await asyncio.sleep(0.05)
    done.set()
    await asyncio.gather(*searching)
    assert {len(texts) for texts in found.values()} == {1}
    [text] = found[latest]
    assert "quickly" in text
    assert "slowly" not in text


@pytest.mark.parametrize("when", ["put", "delete_other_versions"])
async def test_what_a_writer_left_that_died_has_a_version_of_its_own_when_it_is_finished(
    index: KnowledgeIndex, redis: Redis, context: Context, when: str
) -> None:
    async def dying(*_: Any) -> None:
        raise StoreUnavailable("the process died here")

    await index.add(context, [manual("slowly")])
    before, working = await version(redis, index), getattr(index._passages, when)
    setattr(index._passages, when, dying)
    with pytest.raises(StoreUnavailable):
        await index.add(context, [manual("quickly")])
    left = await version(redis, index)
    assert (left == before) is (when == "put"), "the record has changed, or it has not"
    setattr(index._passages, when, working)
    await index.add(context, [manual("quickly")])
    assert await version(redis, index) not in {before, left}
