"""The knowledge base: passages in Milvus, documents and frequencies of terms in Redis.

Vectors of one embedding model mean nothing to another, and Milvus does not know which model made them. So Redis holds
the mode and the embedding of each collection.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict, dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from serve_app.errors import InvalidConfiguration, Problem, ServeAppError, StoreUnavailable
from serve_app.knowledge.document_store import DocumentStore
from serve_app.knowledge.embedding import Embedder
from serve_app.knowledge.ingestion import DocumentWriter, MakeEntries, hold_write_lock
from serve_app.knowledge.search import KnowledgeSearch
from serve_app.resilience.deadline import call_timeout_s, local_deadline
from serve_app.stores.redis import translate_redis_errors
from serve_app.values import DependencyCheck, DocumentList, SearchResult

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from langchain_core.embeddings import Embeddings
    from redis.asyncio import Redis

    from serve_app.config import KnowledgeSettings
    from serve_app.knowledge.passage_store import MilvusReplicas, PassageStore
    from serve_app.resilience.circuit_breaker import GuardedCalls
    from serve_app.values import Context, Document, DocumentSummary, IndexingResult

logger = logging.getLogger(__name__)

CHECK_S = 1.0
"""Less than a readiness probe waits for this process, so that the probe learns what hangs."""
WARM_UP_S = 10.0
"""For loading a large collection; the start of the process waits for it."""


class KnowledgeIndex:
    """`ports.Retriever` over Redis and Milvus; `make_entries` is `make_index_entries` off the event loop."""

    def __init__(
        self,
        settings: KnowledgeSettings,
        redis: Redis,
        replicas: MilvusReplicas,
        make_entries: MakeEntries,
        embeddings: Embeddings | None = None,
    ) -> None:
        self._settings = settings
        self._redis = redis
        self._make_entries = make_entries
        self._replicas = replicas
        self._passages = replicas.passages
        self._collection = CollectionCheck(settings, redis)
        self._embedder: Embedder | None = None
        if settings.embedding is not None and settings.mode != "lexical":
            self._embedder = Embedder(
                settings.embedding, settings.timeout_s, lambda: self._collection.dimension, embeddings
            )

    @property
    def circuits(self) -> dict[str, GuardedCalls]:
        """The circuit breaker of each Milvus, and of the embedding model."""
        circuits = [replica.circuit for replica in self._replicas.all]
        return {each.name: each for each in [*circuits, *([self._embedder.circuit] if self._embedder else [])]}

    async def search(self, context: Context, query: str) -> SearchResult:
        """The passages that bear on `query`.

        Raises:
            StoreUnavailable: Redis, all of Milvus or an embedding model that is needed did not answer.
            DeadlineExceeded: the request has no time left.
        """
        timeout_s = call_timeout_s(local_deadline(context), self._settings.total_timeout_s)
        documents = self._documents(context.tenant)
        search = KnowledgeSearch(context, documents, self._replicas, self._settings, self._embedder)
        try:
            async with asyncio.timeout(timeout_s):
                if not await self._collection.check():
                    return SearchResult()
                return await search.run(query)
        except TimeoutError as error:
            raise StoreUnavailable("The search took too long") from error

    async def warm_up(self) -> None:
        """Connect and load the collection, so that the first search is fast."""
        try:
            if await self._collection.check():
                await asyncio.gather(*(replica.passages.warm_up(WARM_UP_S) for replica in self._replicas.all))
        except ServeAppError as error:
            logger.warning("index_not_warmed_up", extra={"error": error.message})

    async def add(self, context: Context, documents: list[Document]) -> list[IndexingResult]:
        """Index `documents`, each replacing what its source held; one result per document, in order.

        After an error or an interruption, send the same documents again: indexing goes on where it was.

        Raises:
            Overloaded: another replica was still indexing at the deadline.
            StoreUnavailable: a store did not answer.
            DeadlineExceeded: the request's time ran out between two documents.
        """
        writer = self._writer(context.tenant)
        unchanged = await writer.find_unchanged(documents)
        if unchanged is not None:
            return unchanged
        deadline = local_deadline(context)
        async with hold_write_lock(self._redis, self._settings.collection, deadline) as lease:
            measure_dimension = self._embedder.measure_dimension if self._embedder else None
            await self._collection.ensure_collection(self._passages, measure_dimension)
            await writer.finish_interrupted()
            try:
                results = []
                for document in documents:
                    call_timeout_s(deadline, inf)
                    results.append(await writer.put(lease, document))
                return results
            finally:
                await self._passages.flush()

    async def documents(self, context: Context, offset: int, limit: int) -> DocumentList:
        """A page of the documents, by source.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        page = await self._documents(context.tenant).page(offset, limit)
        return DocumentList(documents=page.documents, total=page.total, passages=page.passages)

    async def remove(self, context: Context, document_id: str) -> DocumentSummary:
        """Remove a document and its passages; returns what it was.

        Raises:
            NotFound: there is no such document.
            Overloaded: another replica was still indexing at the deadline.
            StoreUnavailable: a store did not answer.
        """
        writer = self._writer(context.tenant)
        async with hold_write_lock(self._redis, self._settings.collection, local_deadline(context)) as lease:
            summary = await writer.remove(lease, document_id)
            await self._passages.flush()
        return summary

    async def checks(self) -> list[DependencyCheck]:
        """Checks of each Milvus, of the collection, and of the embedding model."""
        checks: dict[str, tuple[Awaitable[object], GuardedCalls | None]] = {
            replica.circuit.name: (replica.passages.ping(CHECK_S), replica.circuit) for replica in self._replicas.all
        }
        checks["knowledge"] = (self._collection.check(), None)
        if self._embedder is not None:
            checks["embedding"] = (self._embedder.ping(), self._embedder.circuit)
        return list(await asyncio.gather(*(_run_check(name, *each) for name, each in checks.items())))

    async def close(self) -> None:
        """Close the connections to Milvus; the one to Redis is the caller's."""
        await self._replicas.close()

    def _documents(self, tenant: str) -> DocumentStore:
        return DocumentStore(self._redis, self._settings.collection, tenant)

    def _writer(self, tenant: str) -> DocumentWriter:
        return DocumentWriter(tenant, self._documents(tenant), self._passages, self._make_entries, self._embedder)


async def _run_check(name: str, check: Awaitable[object], circuit: GuardedCalls | None) -> DependencyCheck:
    """The outcome of a check, which is never required: turns are answered without knowledge.

    A check does not close a circuit breaker; the next search after the cool-down does.
    """
    reasons = []
    try:
        async with asyncio.timeout(CHECK_S):
            await check
    except ServeAppError as error:
        reasons.append(error.message)
    except TimeoutError:
        reasons.append(f"No answer within {CHECK_S:.0f} second")
    if circuit is not None and circuit.state == "open":
        reasons.append(f"searches failed again and again and go without it for {circuit.retry_after_s:.0f} s")
    return DependencyCheck(name=name, ok=not reasons, reason="; ".join(reasons) or None, required=False)


@dataclass(frozen=True, slots=True)
class CollectionOrigin:
    """The mode and the embedding that a collection was made with."""

    mode: str
    embedding: str | None


class CollectionCheck:
    """Compares one collection with the configuration; once right, it stays right."""

    def __init__(self, settings: KnowledgeSettings, redis: Redis) -> None:
        self._redis: Any = redis
        self.dimension: int | None = None
        """Length of the collection's dense vectors; None while unknown."""
        self._key = f"{settings.collection}:layout"
        self._key_of_dimension = f"{settings.collection}:dimension"
        self._collection = settings.collection
        named = settings.embedding
        self._wanted = CollectionOrigin(settings.mode, named.identity if named and settings.mode != "lexical" else None)
        self._right = False

    async def check(self) -> bool:
        """Whether there is a collection.

        Raises:
            InvalidConfiguration: it was made for another mode or another embedding.
            StoreUnavailable: Redis did not answer.
        """
        if self._right:
            return True
        with translate_redis_errors():
            stored, dimension = await self._redis.mget(self._key, self._key_of_dimension)
        if stored is None:
            return False
        made = CollectionOrigin(**json.loads(stored))
        if made != self._wanted:
            raise InvalidConfiguration((self._problem(made),))
        self.dimension = int(dimension) if dimension else None
        self._right = True
        return True

    async def ensure_collection(
        self, passages: PassageStore, measure_dimension: Callable[[], Awaitable[int]] | None
    ) -> None:
        """Create the collection if there is none; without `measure_dimension` it has no dense vectors.

        Raises:
            InvalidConfiguration: it was made for another mode or another embedding.
            ModelUnavailable: the embedding model did not answer.
            StoreUnavailable: a store did not answer, or Milvus has lost the collection.
        """
        stored = await self.check()
        if stored and await passages.exists():
            return
        if stored:
            raise StoreUnavailable(
                f"Milvus no longer has the collection {self._collection}: restore it, or name another one"
            )
        dimension = await measure_dimension() if measure_dimension else None
        await passages.create(dimension)
        of_dense = {self._key_of_dimension: dimension} if dimension else {}
        with translate_redis_errors():
            await self._redis.mset({self._key: json.dumps(asdict(self._wanted)), **of_dense})
        await self.check()

    def _problem(self, made: CollectionOrigin) -> Problem:
        what = f"collection {self._collection!r} was made for mode {made.mode}"
        if made.embedding:
            what += f" and embedding {made.embedding}"
        return Problem("knowledge", what, "Name a new collection and ingest the documents again, or put the mode back")
