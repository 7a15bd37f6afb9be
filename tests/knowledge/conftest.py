"""Which index do the tests of the knowledge base use?"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from serve_app.config import KnowledgeSettings, MilvusSettings
from serve_app.knowledge.index import KnowledgeIndex
from serve_app.knowledge.index_entries import IndexEntry, make_index_entries
from serve_app.knowledge.replicas import MilvusReplicas
from serve_app.values import Context, Document

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis.asyncio import Redis


PATIENT_S = 5.0
"""For a search on a busy machine, where a test is about what is found."""


async def prepare(document: Document) -> list[IndexEntry]:
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


@pytest.fixture
async def open_index(redis: Redis, milvus_url: str) -> AsyncIterator[Callable[..., KnowledgeIndex]]:
    """Opens an index over a new collection, or over the one that is named; options are `KnowledgeSettings`."""
    opened = []

    def open_index(
        prepare: Any = prepare,
        embeddings: Any = None,
        url: str = milvus_url,
        standby: str | None = None,
        **options: Any,
    ) -> KnowledgeIndex:
        settings = KnowledgeSettings(**{"collection": f"c{uuid4().hex}", "timeout_s": PATIENT_S, **options})
        servers = MilvusReplicas(MilvusSettings(url=url, standby=standby), settings)
        opened.append(KnowledgeIndex(settings, redis, servers, prepare, embeddings))
        return opened[-1]

    yield open_index
    for index in opened:
        await index.close()


@pytest.fixture
def index(open_index: Callable[..., KnowledgeIndex]) -> KnowledgeIndex:
    return open_index()
