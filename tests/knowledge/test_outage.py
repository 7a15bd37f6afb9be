"""Milvus or Redis go away, and come back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from listening import free_port
from pymilvus import MilvusClient
from tcp_proxy import proxied

from serve_app.config import KnowledgeSettings, MilvusSettings, RedisSettings
from serve_app.deployments.embedded_stores import EmbeddedStores, choose_ports
from serve_app.errors import StoreUnavailable
from serve_app.knowledge.chunking import make_index_entries
from serve_app.knowledge.index import KnowledgeIndex
from serve_app.knowledge.passage_store import MilvusReplicas, PassageStore
from serve_app.stores.redis import create_redis_client
from serve_app.values import Document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from serve_app.knowledge.chunking import IndexEntry
    from serve_app.values import Context

DISK = Document(source="disk", text="Erase the disk with shred.")
CLOCK = Document(source="clock", text="Set the clock with hwclock.")


async def make_entries(document: Document) -> list[IndexEntry]:
    return make_index_entries(document)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[EmbeddedStores]:
    stores = EmbeddedStores(tmp_path, choose_ports(tmp_path), redis=False, milvus=True)
    stores.start()
    yield stores
    stores.stop()


async def until(index: KnowledgeIndex, *, answers: bool) -> None:
    """Wait until Milvus answers, or does not any more."""
    async with asyncio.timeout(15):
        while (await index.checks())[0].ok != answers:  # noqa: ASYNC110 - another process is waited for
            await asyncio.sleep(0.05)


async def test_a_restart_of_milvus_loses_nothing_and_needs_no_new_client(
    open_index: Callable[..., KnowledgeIndex], stores: EmbeddedStores, tmp_path: Path, contexts: Callable[..., Context]
) -> None:
    index = open_index(url=f"http://127.0.0.1:{choose_ports(tmp_path).milvus}")
    await index.add(contexts("t"), [DISK])
    for question in ("How is a disk erased?", "Erase disks"):
        os.kill(stores.pids()["milvus"] or 0, signal.SIGKILL)
        await until(index, answers=False)
        with pytest.raises(StoreUnavailable):
            await index.search(contexts("t"), question)
        await until(index, answers=True)
        found = await asyncio.gather(*(index.search(contexts("t"), question) for _ in range(20)))
        assert [[each.source for each in one.passages] for one in found] == [["disk"]] * 20
    os.kill(stores.pids()["milvus"] or 0, signal.SIGKILL)
    await until(index, answers=False)
    await until(index, answers=True)
    [result] = await index.add(contexts("t"), [CLOCK])
    assert result.status == "added"
    assert [each.source for each in (await index.search(contexts("t"), "hwclock")).passages] == ["clock"]


async def test_a_released_collection_is_loaded_for_all_who_search_it(
    open_index: Callable[..., KnowledgeIndex], milvus_url: str, context: Context
) -> None:
    index = open_index(timeout_s=20)  # of twenty searches, one loads it
    await index.add(context, [DISK])
    client = MilvusClient(milvus_url)
    client.release_collection(index._settings.collection)
    client.close()
    found = await asyncio.gather(*(index.search(context, "Erase disks") for _ in range(20)))
    assert [[each.source for each in one.passages] for one in found] == [["disk"]] * 20


async def test_a_milvus_that_is_not_there_is_said_to_be_so_at_once(
    open_index: Callable[..., KnowledgeIndex], index: KnowledgeIndex, context: Context
) -> None:
    collection = index._settings.collection
    await index.add(context, [DISK])
    other = open_index(url=f"http://127.0.0.1:{free_port()}", collection=collection)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="Milvus did not answer"):
        await other.search(context, "disk")
    with pytest.raises(StoreUnavailable, match="Milvus did not answer"):
        await other.add(context, [CLOCK])
    assert time.monotonic() - started < 12
    [check] = [each for each in await other.checks() if not each.ok]
    assert check.name == "milvus"
    await index.add(context, [CLOCK])
    assert (await index.documents(context, 0, 10)).total == 2


async def test_a_milvus_that_stays_silent_costs_a_write_the_time_out_and_no_more(
    index: KnowledgeIndex, milvus_url: str, context: Context
) -> None:
    await index.add(context, [DISK])
    async with proxied(milvus_url) as proxy:
        passages = PassageStore(MilvusSettings(url=proxy.url, timeout_s=0.4), index._settings.collection)
        await passages.ping(5)
        proxy.silent = True
        for write in (passages.delete_other_versions("t", "none", None), passages.flush(), passages.exists()):
            begun = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await write
            assert time.monotonic() - begun < 1
        proxy.silent = False
        await passages.close()


async def test_a_redis_that_is_not_there_is_said_to_be_so(milvus_url: str, context: Context) -> None:
    redis = create_redis_client(RedisSettings(timeout_s=0.5), f"redis://127.0.0.1:{free_port()}/0")
    index = KnowledgeIndex(
        KnowledgeSettings(), redis, MilvusReplicas(MilvusSettings(url=milvus_url), KnowledgeSettings()), make_entries
    )
    with pytest.raises(StoreUnavailable, match="Redis did not answer"):
        await index.search(context, "disk")
    with pytest.raises(StoreUnavailable, match="Redis did not answer"):
        await index.add(context, [DISK])
    with pytest.raises(StoreUnavailable, match="Redis did not answer"):
        await index.documents(context, 0, 10)
    await index.close()
    await redis.aclose()


async def test_a_collection_that_milvus_has_lost_is_not_silently_begun_anew(
    open_index: Callable[..., KnowledgeIndex],
    index: KnowledgeIndex,
    stores: EmbeddedStores,
    tmp_path: Path,
    context: Context,
) -> None:
    await index.add(context, [DISK])
    url = f"http://127.0.0.1:{choose_ports(tmp_path).milvus}"
    empty = open_index(url=url, collection=index._settings.collection)
    with pytest.raises(StoreUnavailable, match="no longer has the collection"):
        await empty.add(context, [CLOCK])
    with pytest.raises(StoreUnavailable):
        await empty.search(context, "disk")
    assert (await index.documents(context, 0, 10)).total == 1
