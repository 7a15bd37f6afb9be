"""Opens indexes for the tests of the knowledge base, over collections that the tests share."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from pymilvus import MilvusClient

from serve_app.config import KnowledgeSettings, MilvusSettings
from serve_app.knowledge.chunking import IndexEntry, make_index_entries
from serve_app.knowledge.index import KnowledgeIndex
from serve_app.knowledge.passage_store import MilvusReplicas
from serve_app.values import Context, Document

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from redis.asyncio import Redis


PATIENT_S = 5.0
"""For a search on a busy machine, where a test is about what is found."""


async def make_entries(document: Document) -> list[IndexEntry]:
    return await asyncio.to_thread(make_index_entries, document)


@pytest.fixture
def context() -> Context:
    return context_of("default")


def context_of(tenant: str, seconds: float = 60, behind_s: float = 0) -> Context:
    """What a request has that is given so many seconds, and comes to a process whose clock is behind by so many."""
    deadline = time.time() + behind_s + seconds
    return Context(request_id="q1", run_id="r1", session_id="s1", tenant=tenant, deadline=deadline, timeout_s=seconds)


@pytest.fixture
def contexts() -> Callable[..., Context]:
    return context_of


class CollectionPool:
    """Empty collections of one Milvus, by what they are made of: to create one takes most of a second."""

    def __init__(self, url: str) -> None:
        self._client = MilvusClient(url)
        self._free: dict[str, list[str]] = {}

    def take(self, kind: str) -> str:
        """The name of an empty collection of this kind, or of a new one."""
        free = self._free.setdefault(kind, [])
        return free.pop() if free else f"c{uuid4().hex}"

    def give_back(self, kind: str, name: str) -> None:
        """Empty the collection, if it was created, for the next test."""
        if self._client.has_collection(name):
            self._client.load_collection(name)
            self._client.delete(name, filter='id != ""')
            self._free[kind].append(name)

    def close(self) -> None:
        self._client.close()


@pytest.fixture(scope="session")
def collections(milvus_url: str) -> Iterator[CollectionPool]:
    pool = CollectionPool(milvus_url)
    yield pool
    pool.close()


@pytest.fixture
async def open_index(
    redis: Redis, milvus_url: str, collections: CollectionPool
) -> AsyncIterator[Callable[..., KnowledgeIndex]]:
    """Opens an index over an empty collection, or over the one that is named; options are `KnowledgeSettings`."""
    opened: list[KnowledgeIndex] = []
    taken: list[tuple[str, str]] = []

    def open_index(
        make_entries: Any = make_entries,
        embeddings: Any = None,
        url: str = milvus_url,
        standby: str | None = None,
        **options: Any,
    ) -> KnowledgeIndex:
        if "collection" not in options:
            kind = "words" if options.get("mode", "lexical") == "lexical" else "words and meaning"
            options["collection"] = collections.take(kind)
            taken.append((kind, options["collection"]))
        settings = KnowledgeSettings(**{"timeout_s": PATIENT_S, **options})
        replicas = MilvusReplicas(MilvusSettings(url=url, standby=standby), settings)
        opened.append(KnowledgeIndex(settings, redis, replicas, make_entries, embeddings))
        return opened[-1]

    yield open_index
    for index in opened:
        await index.close()
    for kind, name in taken:
        collections.give_back(kind, name)


@pytest.fixture
def index(open_index: Callable[..., KnowledgeIndex]) -> KnowledgeIndex:
    return open_index()
