"""What is found for a question?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.errors import ModelUnavailable, StoreUnavailable
from serve_app.knowledge.question import Question
from serve_app.knowledge.rank import Candidate, bearing, distinct, fused
from serve_app.values import SearchResult

if TYPE_CHECKING:
    from serve_app.config import KnowledgeSettings
    from serve_app.knowledge.document_store import DocumentStore
    from serve_app.knowledge.embedding import Embedder
    from serve_app.knowledge.passage_store import PassageHit, Vector
    from serve_app.knowledge.question import Weighed
    from serve_app.knowledge.replicas import MilvusReplicas
    from serve_app.values import Context

FETCHED = 40
"""Passages looked at, at least: replaced ones and those that say the same fall out."""


class Search:
    """Searches the passages of the context's tenant."""

    def __init__(
        self,
        context: Context,
        registry: DocumentStore,
        servers: MilvusReplicas,
        settings: KnowledgeSettings,
        embedder: Embedder | None,
    ) -> None:
        self._context = context
        self._registry = registry
        self._servers = servers
        self._settings = settings
        self._embedder = embedder
        self._fetched = max(FETCHED, 3 * settings.limit)

    async def find(self, query: str) -> SearchResult:
        """The passages that bear on `query`, best first.

        Raises:
            StoreUnavailable: no store answered, or no embedding model where there is no other way to search.
        """
        question = Question.of(query)
        total, frequencies = await self._registry.statistics(question.ids())
        if not total:
            return SearchResult()
        weighed = question.weighed(total, frequencies)
        vectors: dict[str, Vector] = {}
        if self._settings.mode != "dense" and any(frequencies.values()):
            vectors["sparse"] = weighed.vector()
        dense = await self._embedded(query)
        if dense:
            vectors["dense"] = dense
        if not vectors:
            return SearchResult(lexical_only=self._embedder is not None)
        near = await self._servers.near(self._context, vectors, self._fetched)
        ranked = fused(_by_words(near.hits.get("sparse", []), weighed), _by_meaning(near.hits.get("dense", [])))
        current = await self._current(bearing(ranked, self._settings.min_score))
        return SearchResult(
            passages=[each.passage for each in distinct(current, self._settings.limit)],
            standby=near.standby,
            lexical_only=self._embedder is not None and not dense,
        )

    async def _embedded(self, query: str) -> list[float]:
        """The vector of the question; empty where the search goes by words alone."""
        if self._embedder is None:
            return []
        try:
            return await self._embedder.query(self._context, query)
        except ModelUnavailable as error:
            if self._settings.mode == "dense":
                raise StoreUnavailable(error.message, error.retry_after_s) from error
            return []

    async def _current(self, candidates: list[Candidate]) -> list[Candidate]:
        """Without the passages of versions that are being stored or deleted."""
        records = await self._registry.records({each.hit.document_id for each in candidates})
        versions = {key: record.digest for key, record in records.items()}
        return [each for each in candidates if versions.get(each.hit.document_id) == each.hit.digest]


def _by_words(hits: list[PassageHit], question: Weighed) -> list[Candidate]:
    best_first = sorted(hits, key=lambda hit: -question.merit(hit.weights))
    return [Candidate(hit, question.score(hit.weights)) for hit in best_first]


def _by_meaning(hits: list[PassageHit]) -> list[Candidate]:
    return [Candidate(hit, min(1.0, max(0.0, hit.distance))) for hit in hits]
