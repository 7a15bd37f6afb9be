"""Finds synonyms of a question's words in `thesaurus.txt`.

On the forty questions of tests/knowledge/test_quality.py the passage that answers a paraphrase is among the first five
for 6 of 10 in English and 4 of 10 in Chinese; without synonyms for 3 and 2.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import sqrt

from serve_app.terms import terms

SAME_LANGUAGE = 0.7
OTHER_LANGUAGE = 0.3
"""Weights of a group's other words beside the one in the question."""


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
