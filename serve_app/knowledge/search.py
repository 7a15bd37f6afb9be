"""What is found for a question?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.errors import ModelUnavailable, StoreUnavailable
from serve_app.knowledge.question import Question
from serve_app.knowledge.rank import Candidate, bearing, distinct, fused

if TYPE_CHECKING:
    from serve_app.config import KnowledgeSettings
    from serve_app.knowledge.embed import Embedder
    from serve_app.knowledge.passages import Passages
    from serve_app.knowledge.question import Weighed
    from serve_app.knowledge.registry import Registry
    from serve_app.values import Passage

FETCHED = 40
"""Passages looked at, at least: replaced ones and those that say the same fall out."""


class Search:
    """Searches one tenant's passages."""

    def __init__(
        self,
        tenant: str,
        registry: Registry,
        passages: Passages,
        settings: KnowledgeSettings,
        embedder: Embedder | None,
    ) -> None:
        self._tenant = tenant
        self._registry = registry
        self._passages = passages
        self._settings = settings
        self._embedder = embedder
        self._fetched = max(FETCHED, 3 * settings.limit)

    async def find(self, query: str, timeout_s: float) -> list[Passage]:
        """The passages that bear on `query`, best first.

        Raises:
            StoreUnavailable: a store did not answer, or the embedding model where there is no other way to search.
        """
        question = Question.of(query)
        total, frequencies = await self._registry.statistics(question.ids())
        if not total:
            return []
        lexical = dense = []
        if self._settings.mode != "dense" and any(frequencies.values()):
            lexical = await self._lexical(question.weighed(total, frequencies), timeout_s)
        if self._embedder:
            dense = await self._dense(self._embedder, query, timeout_s)
        current = await self._current(bearing(fused(lexical, dense), self._settings.min_score))
        return [each.passage for each in distinct(current, self._settings.limit)]

    async def _lexical(self, question: Weighed, timeout_s: float) -> list[Candidate]:
        hits = await self._passages.near(self._tenant, question.vector(), self._fetched, timeout_s)
        hits.sort(key=lambda hit: -question.merit(hit.weights))
        return [Candidate(hit, question.score(hit.weights)) for hit in hits]

    async def _dense(self, embedder: Embedder, query: str, timeout_s: float) -> list[Candidate]:
        try:
            vector = await embedder.query(query)
        except ModelUnavailable as error:
            if self._settings.mode == "dense":
                raise StoreUnavailable(error.message) from error
            return []
        hits = await self._passages.near(self._tenant, vector, self._fetched, timeout_s)
        return [Candidate(hit, min(1.0, max(0.0, hit.distance))) for hit in hits]

    async def _current(self, candidates: list[Candidate]) -> list[Candidate]:
        """Without the passages of versions that are being stored or deleted."""
        records = await self._registry.records({each.hit.document_id for each in candidates})
        versions = {key: record.digest for key, record in records.items()}
        return [each for each in candidates if versions.get(each.hit.document_id) == each.hit.digest]
