"""Quotes the sentences of passages that answer a question, with all sources."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from serve_app.llm.offline.phrases import ASKING_TERMS, is_chinese, render_phrase
from serve_app.terms import content_terms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


QUOTED_PASSAGES = 3
QUOTED_SHARE = 0.5
"""Of the best passage's score; a passage below it is named but not quoted."""
QUOTED_CHARACTERS = 480
"""Of each passage; a code block or a table row is never cut."""
SHARE_NEEDED = {1: 0.34, 2: 0.12}
"""Of the question's terms, where a passage has so few of them; three are enough for any question."""
TITLED_SHARE_NEEDED = 0.25
"""The same, where a title has one of them."""

_LATIN = re.compile("[A-Za-z]{2}")
_FENCE = re.compile(r"^\s*(?:```|~~~)")
_CODE = re.compile(r"^(?: {4}|\t|\$ |# (?=[a-z./])|> )")
_ROW = re.compile(r"^\s*\|.*\|\s*$")
_RULE = re.compile(r"^[\s|:+=-]+$")
_SENTENCE_END = re.compile(r"(?<=[。！？；])|(?<=[.!?])\s+(?=[A-Z\"'(\[])")
_FULL_STOPS = ("。", "！", "？", "；")
_HEADING = re.compile(r"^#{1,6}\s+")


@dataclass(frozen=True, slots=True)
class QuotedPassage:
    """A passage as a tool returned it."""

    number: int
    source: str
    title: str
    text: str
    terms: frozenset[str]
    """Those of its title and of its text."""


@dataclass(frozen=True, slots=True)
class TextUnit:
    """A sentence, a table row or a block of code, quoted as a whole."""

    text: str
    is_block: bool


def read_passages(content: str) -> list[QuotedPassage] | None:
    """Returns the passages that a tool's output lists; None where it is something else."""
    if not content.lstrip().startswith("["):
        return None
    try:
        rows = json.loads(content)
    except ValueError:
        return None
    if not all(isinstance(row, dict) and {"passage", "source"} <= row.keys() for row in rows):
        return None
    return [_read_passage(row, number) for number, row in enumerate(rows, 1)]


def _read_passage(row: dict[str, Any], number: int) -> QuotedPassage:
    number = row["n"] if isinstance(row.get("n"), int) else number
    title, text = str(row.get("title") or ""), str(row["passage"])
    return QuotedPassage(number, str(row["source"]), title, text, content_terms(f"{title}\n{text}"))


def answers_question(question: str, passages: Sequence[QuotedPassage]) -> bool:
    """Returns whether the passages are about what is asked.

    They come from a search that has its own threshold: only those that share next to nothing with the question are
    refused. Passages that are all in the other language must share a name in Latin letters with it.
    """
    wanted = content_terms(question) - ASKING_TERMS or content_terms(question)
    if not passages or not wanted:
        return bool(passages)
    if all(is_chinese(passage.text) != is_chinese(question) for passage in passages):
        return any(_LATIN.search(term) for passage in passages for term in wanted & passage.terms)
    titled = any(wanted & content_terms(passage.title) for passage in passages)
    shared = max(len(wanted & passage.terms) for passage in passages)
    needed = SHARE_NEEDED.get(shared, 0.0)
    return shared > 0 and shared >= len(wanted) * (min(needed, TITLED_SHARE_NEEDED) if titled else needed)


def quote_passages(question: str, queries: Sequence[str], passages: Sequence[QuotedPassage]) -> Iterator[str]:
    """Yields the answer in pieces: the best lines, then the sources of all passages."""
    weights = _weigh_terms(" ".join([question, *queries]), passages)
    scores = [_score(passage.terms, weights) for passage in passages]
    ranked = sorted(zip(scores, passages, strict=True), key=lambda scored: -scored[0])[:QUOTED_PASSAGES]
    yield render_phrase("passages", question)
    for passage in (passage for score, passage in ranked if score >= QUOTED_SHARE * ranked[0][0]):
        yield f"\n\n{_add_mark(_excerpt(passage.text, weights), passage.number)}"
    yield "\n\n" + render_phrase("sources", question)
    for passage in passages:
        title = f" — {passage.title}" if passage.title else ""
        yield f"\n[{passage.number}] {passage.source}{title}"


def _weigh_terms(question: str, passages: Sequence[QuotedPassage]) -> dict[str, float]:
    """Returns the weight of each term: the fewer passages have it, the more it counts."""
    wanted = content_terms(question) - ASKING_TERMS
    having = Counter(term for passage in passages for term in passage.terms & wanted)
    return {term: math.log(1 + (len(passages) + 1) / (count + 0.5)) for term, count in having.items()}


def _score(terms: frozenset[str], weights: dict[str, float]) -> float:
    return sum(weights.get(term, 0.0) for term in terms)


def _excerpt(text: str, weights: dict[str, float]) -> str:
    """Returns the run of units around the best one, as long as it may be."""
    units = list(_split_units(text))
    if not units:
        return text.strip()[:QUOTED_CHARACTERS]
    scores = [_score(content_terms(unit.text), weights) for unit in units]
    first = last = max(range(len(units)), key=lambda index: scores[index])
    size = len(units[first].text)
    while True:
        after = scores[last + 1] + 0.1 * units[last + 1].is_block + 0.05 if last + 1 < len(units) else -1.0
        before = scores[first - 1] if first > 0 else -1.0
        take = last + 1 if after >= before else first - 1
        if max(after, before) < 0 or size + len(units[take].text) > QUOTED_CHARACTERS:
            break
        size += len(units[take].text)
        first, last = min(first, take), max(last, take)
    return _join_units(units[first : last + 1])


def _join_units(units: list[TextUnit]) -> str:
    """Joins units: blocks on lines of their own, Chinese sentences without a space."""
    text = units[0].text
    for before, unit in pairwise(units):
        if before.is_block or unit.is_block:
            text += "\n"
        elif not before.text.endswith(_FULL_STOPS):
            text += " "
        text += unit.text
    return text


def _split_units(text: str) -> Iterator[TextUnit]:
    """Yields sentences; table rows, indented lines and fenced blocks whole."""
    block: list[str] = []
    prose: list[str] = []
    for line in text.splitlines():
        if _FENCE.match(line) or block:
            yield from _split_sentences(prose)
            block.append(line)
            if _FENCE.match(line) and len(block) > 1:
                yield TextUnit("\n".join(block), is_block=True)
                block = []
        elif _ROW.match(line) or _CODE.match(line):
            yield from _split_sentences(prose)
            if not _RULE.match(line):
                yield TextUnit(line, is_block=True)
        elif line.strip():
            prose.append(_HEADING.sub("", line.strip()))
        else:
            yield from _split_sentences(prose)
    if block:
        yield TextUnit("\n".join(block), is_block=True)
    yield from _split_sentences(prose)


def _split_sentences(lines: list[str]) -> Iterator[TextUnit]:
    """Yields the sentences of the collected lines, and empties the list."""
    text = ("" if lines and is_chinese(lines[0]) else " ").join(lines)
    lines.clear()
    yield from (
        TextUnit(sentence.strip(), is_block=False) for sentence in _SENTENCE_END.split(text) if sentence.strip()
    )


def _add_mark(excerpt: str, number: int) -> str:
    """Returns the excerpt with its mark, on a line of its own after a block."""
    is_block = excerpt.endswith(("```", "~~~", "|")) or excerpt.startswith("    ")
    return f"{excerpt}\n[{number}]" if is_block else f"{excerpt} [{number}]"
