"""BM25, with synonyms, as an inner product of two sparse vectors.

Any vector index can compute it. A passage's side is tf (k1 + 1) / (tf + k1 (1 - b + b length / average)); a question's
side is the idf ln(1 + (N - df + 0.5) / (df + 0.5)). The average length is a constant, because chunking bounds passages.
Lengths are counted in characters, which treats languages alike where counts of terms would not. N counts BACKGROUND
passages more than there are. Headings are a field of their own: as in BM25F their occurrences are weighted and added to
the text's before the saturation.

A question is a set of concepts: each is a term with the synonyms that may stand for it. A passage gets the best term of
each concept only, so that a text is not preferred for using many words for one thing. The synonyms are in
`thesaurus.txt`: on the forty questions of tests/knowledge/test_quality.py the passage that answers a paraphrase is
among the first five for 6 of 10 in English and 4 of 10 in Chinese; without synonyms for 3 and 2.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import log, sqrt
from typing import TYPE_CHECKING
from zlib import crc32

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

SAME_LANGUAGE = 0.7
OTHER_LANGUAGE = 0.3
"""Weights of a group's other words beside the one in the question."""

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


@dataclass(frozen=True, slots=True)
class Synonyms:
    """The terms of a word, and the weights of the terms of its synonyms."""

    terms: list[str]
    others: dict[str, float]


def find_synonyms(question: str) -> list[Synonyms]:
    """The words of `question` that have synonyms."""
    synonyms, chinese_word = _load()
    text = unicodedata.normalize("NFKC", question)
    words = [*dict.fromkeys([*terms(text), *chinese_word.findall(text)])]
    return [Synonyms(_word_terms(word), synonyms[word]) for word in words if word in synonyms]


def read_groups() -> list[list[str]]:
    """The groups of words that mean the same."""
    lines = files("serve_app.knowledge").joinpath("thesaurus.txt").read_text(encoding="utf-8").splitlines()
    return [line.split() for line in lines if not line.startswith("#")]


@cache
def _load() -> tuple[dict[str, dict[str, float]], re.Pattern[str]]:
    """The weighted synonyms of each stem or Chinese word; a pattern of all Chinese words."""
    synonyms: dict[str, dict[str, float]] = {}
    for words in read_groups():
        for word in words:
            others = synonyms.setdefault(_word_terms(word)[0] if word.isascii() else word, {})
            for other in words:
                weight = SAME_LANGUAGE if word.isascii() == other.isascii() else OTHER_LANGUAGE
                spelled = _word_terms(other)
                for term in spelled:
                    others[term] = max(others.get(term, 0.0), weight / sqrt(len(spelled)))
    chinese = sorted((word for word in synonyms if not word.isascii()), key=len, reverse=True)
    return synonyms, re.compile("|".join(chinese))


def _word_terms(word: str) -> list[str]:
    """The terms that stand for a word; for a Chinese word its pairs of characters."""
    spelled = terms(word)
    return [term for term in spelled if len(term) > 1] or spelled
