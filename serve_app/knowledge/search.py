"""Searches the passages of a tenant, and ranks what the indexes return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve_app.errors import ModelUnavailable, StoreUnavailable
from serve_app.knowledge.bm25 import SearchQuery
from serve_app.values import Passage, SearchResult

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serve_app.config import KnowledgeSettings
    from serve_app.knowledge.bm25 import WeightedQuery
    from serve_app.knowledge.document_store import DocumentStore
    from serve_app.knowledge.embedding import Embedder
    from serve_app.knowledge.passage_store import MilvusReplicas, PassageHit, Vector
    from serve_app.values import Context

MIN_HITS = 40
"""Passages fetched at least: replaced passages and repetitions are removed afterwards."""

DUPLICATE_SHARE = 0.8
"""Term overlap above which a passage counts as a repetition."""

RRF_K = 60
"""The constant of reciprocal rank fusion (Cormack, Clarke and Buettcher, 2009)."""

BESIDE_BEST = 0.5
"""If a passage reaches `knowledge.min_score`, others need only this share of that score."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that was found, with the score that the API shows."""

    hit: PassageHit
    score: float

    def to_passage(self) -> Passage:
        """The passage as the API returns it."""
        hit = self.hit
        return Passage(
            document_id=hit.document_id, source=hit.source, title=hit.title, text=hit.text, score=round(self.score, 4)
        )


class KnowledgeSearch:
    """A search of the passages of the context's tenant."""

    def __init__(
        self,
        context: Context,
        documents: DocumentStore,
        replicas: MilvusReplicas,
        settings: KnowledgeSettings,
        embedder: Embedder | None,
    ) -> None:
        self._context = context
        self._documents = documents
        self._replicas = replicas
        self._settings = settings
        self._embedder = embedder

    async def run(self, query: str) -> SearchResult:
        """The passages that bear on `query`, best first.

        Raises:
            StoreUnavailable: no store answered, or no embedding model where there is no other way to search.
        """
        question = SearchQuery.parse(query)
        total, frequencies = await self._documents.statistics(question.term_ids())
        if not total:
            return SearchResult()
        weighted = question.weigh(total, frequencies)
        vectors: dict[str, Vector] = {}
        if self._settings.mode != "dense" and any(frequencies.values()):
            vectors["sparse"] = weighted.vector()
        dense = await self._embed(query)
        if dense:
            vectors["dense"] = dense
        if not vectors:
            return SearchResult(lexical_only=self._embedder is not None)
        found = await self._replicas.search(self._context, vectors, max(MIN_HITS, 3 * self._settings.limit))
        lexical, semantic = found.hits.get("sparse", []), found.hits.get("dense", [])
        ranked = fuse_rankings(_rank_by_words(lexical, weighted), _rank_by_meaning(semantic))
        current = await self._drop_outdated(select_relevant(ranked, self._settings.min_score))
        return SearchResult(
            passages=[each.to_passage() for each in drop_repetitions(current, self._settings.limit)],
            standby=found.standby,
            lexical_only=self._embedder is not None and not dense,
        )

    async def _embed(self, query: str) -> list[float]:
        """The vector of the question; empty where the search goes by words alone."""
        if self._embedder is None:
            return []
        try:
            return await self._embedder.embed_query(self._context, query)
        except ModelUnavailable as error:
            if self._settings.mode == "dense":
                raise StoreUnavailable(error.message, error.retry_after_s) from error
            return []

    async def _drop_outdated(self, candidates: list[Candidate]) -> list[Candidate]:
        """The candidates without passages of versions that are being stored or deleted."""
        records = await self._documents.records({each.hit.document_id for each in candidates})
        versions = {key: record.digest for key, record in records.items()}
        return [each for each in candidates if versions.get(each.hit.document_id) == each.hit.digest]


def _rank_by_words(hits: list[PassageHit], question: WeightedQuery) -> list[Candidate]:
    """Rank the hits by their words; equal ones always come in the same order.

    An id ends in the position of the passage, so that in one document the shorter id comes first.
    """
    best_first = sorted(hits, key=lambda hit: (-question.rank_value(hit.weights), len(hit.id), hit.id))
    return [Candidate(hit, question.score(hit.weights)) for hit in best_first]


def _rank_by_meaning(hits: list[PassageHit]) -> list[Candidate]:
    return [Candidate(hit, min(1.0, max(0.0, hit.distance))) for hit in hits]


def fuse_rankings(*rankings: list[Candidate]) -> list[Candidate]:
    """One ranking of several, by reciprocal ranks; a passage keeps its best score."""
    best: dict[str, Candidate] = {}
    value: dict[str, float] = {}
    for ranking in rankings:
        for rank, candidate in enumerate(ranking, start=1):
            key = candidate.hit.id
            value[key] = value.get(key, 0.0) + 1 / (RRF_K + rank)
            best[key] = max(best.get(key, candidate), candidate, key=lambda each: each.score)
    return sorted(best.values(), key=lambda each: -value[each.hit.id])


def select_relevant(candidates: list[Candidate], min_score: float) -> list[Candidate]:
    """The candidates that bear on the question: none, unless one has `min_score`."""
    if max((each.score for each in candidates), default=0.0) < min_score:
        return []
    return [each for each in candidates if each.score >= BESIDE_BEST * min_score]


def drop_repetitions(candidates: Iterable[Candidate], limit: int) -> list[Candidate]:
    """The first `limit` candidates that repeat none before them."""
    chosen: list[Candidate] = []
    for candidate in candidates:
        if not any(_repeats(candidate.hit, other.hit) for other in chosen):
            chosen.append(candidate)
        if len(chosen) == limit:
            break
    return chosen


def _repeats(hit: PassageHit, earlier: PassageHit) -> bool:
    """Whether `hit` repeats `earlier`.

    It is part of `earlier`, or the same text cut at another place, then at most twice as long.
    """
    terms, others = len(hit.weights), len(earlier.weights)
    shared = len(hit.weights.keys() & earlier.weights.keys())
    return shared >= DUPLICATE_SHARE * terms or (shared >= DUPLICATE_SHARE * others and terms <= 2 * others)
