"""In which order are passages returned, and which of them say the same?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve_app.values import Passage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serve_app.knowledge.passage_store import PassageHit

SAME = 0.8
"""The share of a passage's terms that another one has too, from which on it says nothing new beside that one."""
RRF_K = 60
"""Cormack, Clarke and Buettcher, 2009."""
BESIDE = 0.5
"""Beside a passage that bears on the question, others do with this part of its least score."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that was found, with the score that is shown."""

    hit: PassageHit
    score: float

    @property
    def passage(self) -> Passage:
        """As it is returned."""
        hit = self.hit
        return Passage(
            document_id=hit.document_id, source=hit.source, title=hit.title, text=hit.text, score=round(self.score, 4)
        )


def fused(*rankings: list[Candidate]) -> list[Candidate]:
    """One ranking of several, by reciprocal ranks; a passage keeps its best score."""
    best: dict[str, Candidate] = {}
    merit: dict[str, float] = {}
    for ranking in rankings:
        for rank, candidate in enumerate(ranking, start=1):
            key = candidate.hit.id
            merit[key] = merit.get(key, 0.0) + 1 / (RRF_K + rank)
            best[key] = max(best.get(key, candidate), candidate, key=lambda each: each.score)
    return sorted(best.values(), key=lambda each: -merit[each.hit.id])


def bearing(candidates: list[Candidate], min_score: float) -> list[Candidate]:
    """Those that bear on the question: none, where no passage has `min_score`."""
    if max((each.score for each in candidates), default=0.0) < min_score:
        return []
    return [each for each in candidates if each.score >= BESIDE * min_score]


def distinct(candidates: Iterable[Candidate], limit: int) -> list[Candidate]:
    """The first `limit` that say something that none before them says."""
    kept: list[Candidate] = []
    for candidate in candidates:
        if not any(_repeats(candidate.hit, other.hit) for other in kept):
            kept.append(candidate)
        if len(kept) == limit:
            break
    return kept


def _repeats(hit: PassageHit, earlier: PassageHit) -> bool:
    """Whether `hit` is in `earlier`, or is the same text cut at another place: then at most twice as long."""
    terms, others = len(hit.weights), len(earlier.weights)
    shared = len(hit.weights.keys() & earlier.weights.keys())
    return shared >= SAME * terms or (shared >= SAME * others and terms <= 2 * others)
