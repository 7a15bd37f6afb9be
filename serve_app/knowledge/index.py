"""How is a knowledge base asked and kept? Passages are in Milvus, documents and frequencies of terms in Redis."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING

from serve_app.errors import ServeAppError, StoreUnavailable
from serve_app.knowledge.embed import Embedder
from serve_app.knowledge.entry import Entry, entries
from serve_app.knowledge.ingest import Ingest, Prepare
from serve_app.knowledge.layout import Layout
from serve_app.knowledge.passages import Passages
from serve_app.knowledge.registry import Registry
from serve_app.knowledge.search import Search
from serve_app.knowledge.writer import writing
from serve_app.resilience.deadline import limit_s
from serve_app.values import Catalogue, Check

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from langchain_core.embeddings import Embeddings
    from redis.asyncio import Redis

    from serve_app.config import KnowledgeSettings, MilvusSettings
    from serve_app.values import Context, Document, DocumentSummary, Indexed, Passage

__all__ = ["Entry", "Index", "entries"]

CHECK_TIMEOUT_S = 2.0


class Index:
    """`ports.Retriever` over Redis and Milvus; `prepare` is `entries`, called off the event loop."""

    def __init__(
        self,
        settings: KnowledgeSettings,
        redis: Redis,
        milvus: MilvusSettings,
        prepare: Prepare,
        embeddings: Embeddings | None = None,
    ) -> None:
        self._settings = settings
        self._redis = redis
        self._prepare = prepare
        self._passages = Passages(milvus, settings.collection)
        self._layout = Layout(settings, redis)
        self._embedder = None
        if settings.embedding is not None and settings.mode != "lexical":
            self._embedder = Embedder(settings.embedding, embeddings)

    async def search(self, context: Context, query: str) -> list[Passage]:
        """The passages that bear on `query`, best first; empty when none does.

        Raises:
            StoreUnavailable: Milvus, Redis or the embedding model did not answer.
            DeadlineExceeded: the request has no time left.
        """
        timeout_s = limit_s(context.deadline, self._settings.timeout_s)
        search = Search(context.tenant, self._registry(context.tenant), self._passages, self._settings, self._embedder)
        try:
            async with asyncio.timeout(timeout_s):
                if not await self._layout.check():
                    return []
                return await search.find(query, timeout_s)
        except TimeoutError as error:
            raise StoreUnavailable("The search took too long") from error

    async def add(self, context: Context, documents: list[Document]) -> list[Indexed]:
        """Index `documents`, each replacing what its source held; one result per document, in order.

        Sent again after an error or an interruption, it goes on where it was.

        Raises:
            Overloaded: another replica was still indexing at the deadline.
            StoreUnavailable: a store did not answer.
            DeadlineExceeded: the request's time ran out between two documents.
        """
        ingest = self._ingest(context.tenant)
        done = await ingest.is_done(documents)
        if done is not None:
            return done
        async with writing(self._redis, self._settings.collection, context.deadline) as lease:
            await self._layout.make(self._passages, self._embedder)
            await ingest.finish()
            try:
                results = []
                for document in documents:
                    limit_s(context.deadline, inf)
                    results.append(await ingest.put(lease, document))
                return results
            finally:
                await self._passages.settle()

    async def documents(self, context: Context, offset: int, limit: int) -> Catalogue:
        """A page of the documents, by source.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        page = await self._registry(context.tenant).page(offset, limit)
        return Catalogue(documents=page.documents, total=page.total, passages=page.passages)

    async def remove(self, context: Context, document_id: str) -> DocumentSummary:
        """Remove a document and its passages; what it was.

        Raises:
            NotFound: there is no such document.
            Overloaded: another replica was still indexing at the deadline.
            StoreUnavailable: a store did not answer.
        """
        ingest = self._ingest(context.tenant)
        async with writing(self._redis, self._settings.collection, context.deadline) as lease:
            summary = await ingest.remove(lease, document_id)
            await self._passages.settle()
        return summary

    async def checks(self) -> list[Check]:
        """Whether Milvus answers, and whether the collection holds what this configuration searches."""
        asked = {"milvus": self._passages.ping(CHECK_TIMEOUT_S), "knowledge": self._layout.check()}
        if self._embedder is not None:
            asked["embedding"] = self._embedder.ping()
        return list(await asyncio.gather(*(_check(name, asking) for name, asking in asked.items())))

    async def close(self) -> None:
        """Close the connection to Milvus; the one to Redis is the caller's."""
        await self._passages.close()

    def _registry(self, tenant: str) -> Registry:
        return Registry(self._redis, self._settings.collection, tenant)

    def _ingest(self, tenant: str) -> Ingest:
        return Ingest(tenant, self._registry(tenant), self._passages, self._prepare, self._embedder)


async def _check(name: str, asking: Awaitable[object]) -> Check:
    try:
        await asking
    except ServeAppError as error:
        return Check(name=name, ok=False, reason=error.message)
    return Check(name=name, ok=True)
