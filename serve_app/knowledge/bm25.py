"""BM25 as an inner product of sparse vectors of a passage and a question.

Any vector index can compute it. A passage's side is tf (k1 + 1) / (tf + k1 (1 - b + b length / average)); a question's
side is the idf ln(1 + (N - df + 0.5) / (df + 0.5)). The average length is a constant, because chunking bounds passages.
Lengths are counted in characters, which treats languages alike where counts of terms would not. N counts BACKGROUND
passages more than there are. Headings are a field of their own: as in BM25F their occurrences are weighted and added to
the text's before the saturation.

A question is a set of concepts: each is a term with the synonyms that may stand for it. A passage gets the best term of
each concept only, so that a text is not preferred for using many words for one thing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING
from zlib import crc32

from serve_app.knowledge.thesaurus import find_synonyms
from serve_app.terms import terms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

K1 = 1.2
B = 0.6
AVERAGE_CHARACTERS = 600
HEADING_WEIGHT = 2.0
PATH_WEIGHT = 0.5
"""Weight of the headings above the passage's own."""

BACKGROUND = 200
"""Imagined passages without any of the terms: the statistics of a few documents alone would mean little."""

MAX_QUESTION_CHARACTERS = 2_000
MAX_QUESTION_TERMS = 200
"""A question is shorter; of a whole document that is sent as one, the beginning is enough."""

CHARACTER_WEIGHT = 0.3
"""Weight of a single Han, kana or hangul character beside the pairs that it is part of."""

_INDICES = 2**32 - 1
"""Milvus takes indices below this."""


def term_id(term: str) -> int:
    """The index that stands for `term` in a sparse vector, the same in every process."""
    return crc32(term.encode()) % _INDICES


def passage_weights(title: str, text: str) -> dict[int, float]:
    """The passage's side of BM25; `title` joins its path of headings by ' > '."""
    *path, heading = title.split(" > ")
    frequencies = Counter[str]()
    frequencies.update(terms(text))
    for field, weight in ((heading, HEADING_WEIGHT), (" ".join(path), PATH_WEIGHT)):
        for term in set(terms(field)):
            frequencies[term] += weight  # type: ignore[assignment] # a weighted count is a fraction
    norm = K1 * (1 - B + B * len(text) / AVERAGE_CHARACTERS)
    return {term_id(term): tf * (K1 + 1) / (tf + norm) for term, tf in frequencies.items()}


def idf(passages: int, frequency: int) -> float:
    """The weight of a term that `frequency` of `passages` have."""
    return log(1 + (passages + BACKGROUND - frequency + 0.5) / (frequency + 0.5))


def passage_frequencies(vectors: Iterable[dict[int, float]]) -> Counter[int]:
    """The number of passages that have each term."""
    return Counter(index for vector in vectors for index in vector)


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """The terms of a question, each with its synonyms and their weights."""

    concepts: dict[str, dict[str, float]]

    @classmethod
    def parse(cls, text: str) -> SearchQuery:
        """The concepts of the question `text`."""
        begin = text[:MAX_QUESTION_CHARACTERS]
        distinct = [*dict.fromkeys(terms(begin))][:MAX_QUESTION_TERMS]
        concepts: dict[str, dict[str, float]] = {term: {} for term in distinct}
        for synonyms in find_synonyms(begin):
            head = next((term for term in synonyms.terms if term in concepts), None)
            if head is not None:
                concepts[head] |= {term: weight for term, weight in synonyms.others.items() if term not in concepts}
        return cls(concepts)

    def term_ids(self) -> set[int]:
        """The ids of all its terms and their synonyms."""
        return {term_id(term) for head, others in self.concepts.items() for term in (head, *others)}

    def weigh(self, passages: int, frequencies: Mapping[int, int]) -> WeightedQuery:
        """The question with the weight of each term, when `frequencies` of the `passages` have it."""

        def term_weight(term: str) -> float:
            weight = idf(passages, frequencies.get(term_id(term), 0))
            return weight * CHARACTER_WEIGHT if len(term) == 1 and not term.isascii() else weight

        concepts = []
        for head, others in self.concepts.items():
            most = term_weight(head)
            weights = {term_id(term): strength * min(most, term_weight(term)) for term, strength in others.items()}
            concepts.append(Concept(most, {**weights, term_id(head): most}))
        return WeightedQuery(tuple(concepts), idf(passages, 0))


@dataclass(frozen=True, slots=True)
class Concept:
    """The weight of a concept, and of each term that stands for it."""

    weight: float
    terms: dict[int, float]


@dataclass(frozen=True, slots=True)
class WeightedQuery:
    """A question with term weights; `rarest` is that of a term in no passage."""

    concepts: tuple[Concept, ...]
    rarest: float

    def vector(self) -> dict[int, float]:
        """The question's side of BM25."""
        vector: dict[int, float] = {}
        for concept in self.concepts:
            for term, weight in concept.terms.items():
                vector[term] = max(vector.get(term, 0.0), weight)
        return vector

    def rank_value(self, passage: Mapping[int, float]) -> float:
        """How well the passage with these weights answers; only good for comparing passages."""
        return sum(
            max(weight * passage.get(term, 0.0) for term, weight in concept.terms.items()) for concept in self.concepts
        )

    def score(self, passage: Mapping[int, float]) -> float:
        """The share of the question's weight that the passage carries, corrected, 0..1.

        Half of a question of two common words is little evidence, half of a question of six is much. So the share is
        raised to the power of one over the carried weight, counted in rarest terms.
        """
        total = sum(concept.weight for concept in self.concepts)
        carried = sum(
            max((weight for term, weight in concept.terms.items() if term in passage), default=0.0)
            for concept in self.concepts
        )
        return (carried / total) ** (self.rarest / carried) if carried else 0.0
