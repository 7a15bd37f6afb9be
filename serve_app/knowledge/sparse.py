"""How much does a term weigh, in a passage and in a query?

BM25 as an inner product of two sparse vectors, so that any vector index can compute it. A passage's side is
tf (k1 + 1) / (tf + k1 (1 - b + b length / average)); a query's side is the idf ln(1 + (N - df + 0.5) / (df + 0.5)).
The average length is a constant, because the splitter bounds passages; lengths are counted in characters, which treats
languages alike where counts of terms would not. N counts BACKGROUND passages more than there are. Headings are a field
of their own: as in BM25F their occurrences are weighted and added to the text's before the saturation.
"""

from __future__ import annotations

from collections import Counter
from math import log
from typing import TYPE_CHECKING
from zlib import crc32

from serve_app.terms import terms

if TYPE_CHECKING:
    from collections.abc import Iterable

K1 = 1.2
B = 0.6
AVERAGE_CHARACTERS = 600
HEADING_WEIGHT = 2.0
PATH_WEIGHT = 0.5
"""Of the headings above the passage's own."""

BACKGROUND = 200
"""Passages thought of beside those that are there, without any of their terms: a few documents are no statistics."""

_INDICES = 2**32 - 1
"""Milvus takes indices below this."""


def term_id(term: str) -> int:
    """The index that stands for `term` in a sparse vector, the same in every process."""
    return crc32(term.encode()) % _INDICES


def passage_weights(title: str, text: str) -> dict[int, float]:
    """The passage's side; `title` is its path of headings, joined by ' > '."""
    *path, heading = title.split(" > ")
    frequencies = Counter[str]()
    frequencies.update(terms(text))
    for field, weight in ((heading, HEADING_WEIGHT), (" ".join(path), PATH_WEIGHT)):
        for term in set(terms(field)):
            frequencies[term] += weight  # type: ignore[assignment] # a weighted count is a fraction
    norm = K1 * (1 - B + B * len(text) / AVERAGE_CHARACTERS)
    return {term_id(term): tf * (K1 + 1) / (tf + norm) for term, tf in frequencies.items()}


def idf(passages: int, frequency: int) -> float:
    """How much it tells that a term occurs, when `frequency` of `passages` have it."""
    return log(1 + (passages + BACKGROUND - frequency + 0.5) / (frequency + 0.5))


def frequencies(vectors: Iterable[dict[int, float]]) -> Counter[int]:
    """In how many of the passages each term occurs."""
    return Counter(index for vector in vectors for index in vector)
