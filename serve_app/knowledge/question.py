"""What does a question ask for, and how well does a passage answer to it?

A question is a set of concepts: its terms, each with the other terms that may stand for it. A passage's merit is the
BM25 sum over the concepts, of each the best term only, so that a text is not preferred for using many words for one
thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve_app.knowledge.sparse import idf, term_id
from serve_app.knowledge.synonyms import synonyms
from serve_app.terms import terms

if TYPE_CHECKING:
    from collections.abc import Mapping

LOOKED_AT_CHARACTERS = 2_000
MAX_TERMS = 200
"""A question is shorter; of a whole document that is sent as one, the beginning tells enough."""

CHARACTER = 0.3
"""How much a single Han, kana or hangul character counts beside the pairs it is part of."""


@dataclass(frozen=True, slots=True)
class Question:
    """The terms of a question, each with its synonyms and how much these count."""

    concepts: dict[str, dict[str, float]]

    @classmethod
    def of(cls, text: str) -> Question:
        """What `text` asks for."""
        begin = text[:LOOKED_AT_CHARACTERS]
        concepts: dict[str, dict[str, float]] = {term: {} for term in [*dict.fromkeys(terms(begin))][:MAX_TERMS]}
        for found in synonyms(begin):
            head = next((term for term in found.terms if term in concepts), None)
            if head is not None:
                others = {term: strength for term, strength in found.others.items() if term not in concepts}
                concepts[head] |= others
        return cls(concepts)

    def ids(self) -> set[int]:
        """Of all its terms and their synonyms."""
        return {term_id(term) for head, others in self.concepts.items() for term in (head, *others)}

    def weighed(self, passages: int, frequencies: Mapping[int, int]) -> Weighed:
        """With what each term tells, when `frequencies` of the `passages` have it."""

        def tells(term: str) -> float:
            weight = idf(passages, frequencies.get(term_id(term), 0))
            return weight * CHARACTER if len(term) == 1 and not term.isascii() else weight

        concepts = []
        for head, others in self.concepts.items():
            most = tells(head)
            found = {term_id(term): strength * min(most, tells(term)) for term, strength in others.items()}
            concepts.append(Concept(most, {**found, term_id(head): most}))
        return Weighed(tuple(concepts), idf(passages, 0))


@dataclass(frozen=True, slots=True)
class Concept:
    """What it tells that a passage has the concept, and what each term that stands for it does."""

    weight: float
    terms: dict[int, float]


@dataclass(frozen=True, slots=True)
class Weighed:
    """A question as the corpus weighs it; `most` is what the rarest term tells."""

    concepts: tuple[Concept, ...]
    most: float

    def vector(self) -> dict[int, float]:
        """The query's side of BM25."""
        vector: dict[int, float] = {}
        for concept in self.concepts:
            for term, weight in concept.terms.items():
                vector[term] = max(vector.get(term, 0.0), weight)
        return vector

    def merit(self, passage: Mapping[int, float]) -> float:
        """How well the passage with these weights answers; only good for comparing passages."""
        return sum(
            max(weight * passage.get(term, 0.0) for term, weight in concept.terms.items()) for concept in self.concepts
        )

    def score(self, passage: Mapping[int, float]) -> float:
        """The share of the question's weight that the passage carries, 0..1, corrected for how much that is.

        Half of a question of two common words is little evidence, half of one of six is much: the share is raised to
        the power of one over the carried weight, counted in rarest terms.
        """
        total = sum(concept.weight for concept in self.concepts)
        carried = sum(
            max((weight for term, weight in concept.terms.items() if term in passage), default=0.0)
            for concept in self.concepts
        )
        return (carried / total) ** (self.most / carried) if carried else 0.0
