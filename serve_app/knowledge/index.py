"""How is a knowledge base asked and kept? Passages are in Milvus, documents and frequencies of terms in Redis."""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING

from serve_app.errors import ServeAppError, StoreCorrupt, StoreUnavailable
from serve_app.knowledge.collection_check import CollectionCheck
from serve_app.knowledge.document_store import DocumentStore
from serve_app.knowledge.embedding import Embedder
from serve_app.knowledge.ingest import Ingest, Prepare
from serve_app.knowledge.search import Search
from serve_app.knowledge.write_lock import writing
from serve_app.resilience.deadline import call_timeout_s, local_deadline
from serve_app.values import DependencyCheck, DocumentList, SearchResult

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from langchain_core.embeddings import Embeddings
    from redis.asyncio import Redis

    from serve_app.config import KnowledgeSettings
    from serve_app.knowledge.replicas import MilvusReplicas
    from serve_app.resilience.circuit_breaker import GuardedCalls
    from serve_app.stores.lease import Lease
    from serve_app.values import Context, Document, DocumentSummary, IndexingResult

logger = logging.getLogger(__name__)

CHECK_S = 1.0
"""Less than a readiness probe waits for this process, so that the probe is told what hangs."""
WARM_S = 10.0
"""To load a large collection; a start waits for it."""


class KnowledgeIndex:
    """`ports.Retriever` over Redis and Milvus; `prepare` is `entries`, called off the event loop."""

    def __init__(
        self,
        settings: KnowledgeSettings,
        redis: Redis,
        servers: MilvusReplicas,
        prepare: Prepare,
        embeddings: Embeddings | None = None,
    ) -> None:
        self._settings = settings
        self._redis = redis
        self._prepare = prepare
        self._servers = servers
        self._passages = self._servers.passages
        self._layout = CollectionCheck(settings, redis)
        self._embedder = None
        if settings.embedding is not None and settings.mode != "lexical":
            self._embedder = Embedder(settings.embedding, settings.timeout_s, self._layout, embeddings)

    @property
    def circuits(self) -> dict[str, GuardedCalls]:
        """The breaker of each Milvus, and of the embedding."""
        circuits = [server.circuit for server in self._servers.all]
        return {each.name: each for each in [*circuits, *([self._embedder.circuit] if self._embedder else [])]}

    async def search(self, context: Context, query: str) -> SearchResult:
        """The passages that bear on `query`.

        Raises:
            StoreUnavailable: Redis, all of Milvus or an embedding model that is needed did not answer.
            DeadlineExceeded: the request has no time left.
        """
        timeout_s = call_timeout_s(local_deadline(context), self._settings.total_timeout_s)
        search = Search(context, self._registry(context.tenant), self._servers, self._settings, self._embedder)
        try:
            async with asyncio.timeout(timeout_s):
                if not await self._layout.check():
                    return SearchResult()
                return await search.find(query)
        except TimeoutError as error:
            raise StoreUnavailable("The search took too long") from error

    async def warm(self) -> None:
        """Connect and have the collection loaded, so that the first search takes no longer than the next ones."""
        try:
            if await self._layout.check():
                await asyncio.gather(*(server.passages.warm(WARM_S) for server in self._servers.all))
        except ServeAppError as error:
            logger.warning("not_warmed", extra={"error": error.message})

    async def add(self, context: Context, documents: list[Document]) -> list[IndexingResult]:
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
        given_up_at = local_deadline(context)
        async with writing(self._redis, self._settings.collection, given_up_at) as lease:
            await self._layout.make(self._passages, self._embedder)
            await ingest.finish()
            try:
                results = []
                for document in documents:
                    call_timeout_s(given_up_at, inf)
                    results.append(await _put(ingest, lease, document))
                return results
            finally:
                await self._passages.settle()

    async def documents(self, context: Context, offset: int, limit: int) -> DocumentList:
        """A page of the documents, by source.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        page = await self._registry(context.tenant).page(offset, limit)
        return DocumentList(documents=page.documents, total=page.total, passages=page.passages)

    async def remove(self, context: Context, document_id: str) -> DocumentSummary:
        """Remove a document and its passages; what it was.

        Raises:
            NotFound: there is no such document.
            Overloaded: another replica was still indexing at the deadline.
            StoreUnavailable: a store did not answer.
        """
        ingest = self._ingest(context.tenant)
        async with writing(self._redis, self._settings.collection, local_deadline(context)) as lease:
            summary = await ingest.remove(lease, document_id)
            await self._passages.settle()
        return summary

    async def checks(self) -> list[DependencyCheck]:
        """Whether each Milvus and the embedding answer, and whether the collection holds what is searched here."""
        asked: dict[str, tuple[Awaitable[object], GuardedCalls | None]] = {
            server.circuit.name: (server.passages.ping(CHECK_S), server.circuit) for server in self._servers.all
        }
        asked["knowledge"] = (self._layout.check(), None)
        if self._embedder is not None:
            asked["embedding"] = (self._embedder.ping(), self._embedder.circuit)
        return list(await asyncio.gather(*(_check(name, *each) for name, each in asked.items())))

    async def close(self) -> None:
        """Close the connections to Milvus; the one to Redis is the caller's."""
        await self._servers.close()

    def _registry(self, tenant: str) -> DocumentStore:
        return DocumentStore(self._redis, self._settings.collection, tenant)

    def _ingest(self, tenant: str) -> Ingest:
        return Ingest(tenant, self._registry(tenant), self._passages, self._prepare, self._embedder)


async def _put(ingest: Ingest, lease: Lease, document: Document) -> IndexingResult:
    """What became of one document: whatever is wrong with it stops no other; only a store that is away stops all."""
    try:
        return await ingest.put(lease, document)
    except Exception as error:
        if isinstance(error, ServeAppError) and not isinstance(error, StoreCorrupt):
            raise
        logger.exception("document_not_indexed", extra={"source": document.source})
        return ingest.failed(document, "The document could not be indexed")


async def _check(name: str, asking: Awaitable[object], circuit: GuardedCalls | None) -> DependencyCheck:
    """Turns are answered without knowledge; a breaker that is half open waits for the next search to try."""
    reasons = []
    try:
        async with asyncio.timeout(CHECK_S):
            await asking
    except ServeAppError as error:
        reasons.append(error.message)
    except TimeoutError:
        reasons.append(f"No answer within {CHECK_S:.0f} second")
    if circuit is not None and circuit.state == "open":
        reasons.append(f"searches failed again and again and go without it for {circuit.retry_after_s:.0f} s")
    return DependencyCheck(name=name, ok=not reasons, reason="; ".join(reasons) or None, required=False)
