"""How are passages quoted, so that the answer is theirs and its sources are named?"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from serve_app.llm.offline.words import content, is_chinese, topic, vocabulary
from serve_app.terms import content_terms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from serve_app.llm.offline.phrases import Phrases

QUOTED_PASSAGES = 3
QUOTED_SHARE = 0.5
"""Of the best passage's score, below which a passage is named but not quoted."""
QUOTED_CHARACTERS = 480
"""Of each passage; a code block or a table row is never cut."""
SHARE_NEEDED = {1: 0.34, 2: 0.12}
"""Of the question's terms, where a passage has so few of them; three are enough for any question."""
TITLED_SHARE_NEEDED = 0.25
"""The same, where a title has one of them."""
TRANSLATED_SHARE_NEEDED = 0.5
"""Of a question's content, where a passage in another language says it in words of the glossary."""

_LATIN = re.compile("[A-Za-z]{2}")
_FENCE = re.compile(r"^\s*(?:```|~~~)")
_CODE = re.compile(r"^(?: {4}|\t|\$ |# (?=[a-z./])|> )")
_ROW = re.compile(r"^\s*\|.*\|\s*$")
_RULE = re.compile(r"^[\s|:+=-]+$")
_SENTENCE_END = re.compile(r"(?<=[。！？；])|(?<=[.!?])\s+(?=[A-Z\"'(\[])")
_FULL_STOPS = ("。", "！", "？", "；")
_HEADING = re.compile(r"^#{1,6}\s+")


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage as a tool returned it."""

    number: int
    source: str
    title: str
    text: str
    terms: frozenset[str]
    """Those of its title and of its text."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What is quoted as a whole: a sentence, a row, a block of code."""

    text: str
    is_block: bool


def passages_in(content: str) -> list[Passage] | None:
    """The passages that a tool's output lists; None where it is something else."""
    if not content.lstrip().startswith("["):
        return None
    try:
        rows = json.loads(content)
    except ValueError:
        return None
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and {"passage", "source"} <= row.keys() for row in rows
    ):
        return None
    return [_passage(row, number) for number, row in enumerate(rows, 1)]


def _passage(row: dict[str, Any], number: int) -> Passage:
    given = row.get("n")
    title, text = str(row.get("title") or ""), str(row["passage"])
    return Passage(
        number=given if isinstance(given, int) else number,
        source=str(row["source"]),
        title=title,
        text=text,
        terms=content_terms(f"{title}\n{text}"),
    )


def bears(question: str, passages: Sequence[Passage]) -> bool:
    """Whether the passages are about what is asked.

    They came from a search that has its own threshold: only those that share next to nothing with the question are
    refused. Where all of them are in the other language they must share a name with it, or what it is about by the
    glossary: a search without a meaning of its own returns something for any question.
    """
    wanted = topic(question)
    if not passages or not wanted:
        return bool(passages)
    if all(is_chinese(passage.text) != is_chinese(question) for passage in passages):
        return any(_is_shared(question, wanted & passage.terms, passage) for passage in passages)
    titled = wanted & frozenset[str]().union(*(content_terms(passage.title) for passage in passages))
    shared = max(len(wanted & passage.terms) for passage in passages)
    needed = SHARE_NEEDED.get(shared, 0.0)
    needed = min(needed, TITLED_SHARE_NEEDED) if titled else needed
    return shared > 0 and shared >= needed * len(wanted)


def _is_shared(question: str, shared: frozenset[str], passage: Passage) -> bool:
    """Whether a passage in another language names what the question names, in Latin letters or by a synonym."""
    if any(_LATIN.search(term) for term in shared):
        return True
    weight, rest = content(question, vocabulary(f"{passage.title} {passage.text}"))
    return weight > 0 and weight >= TRANSLATED_SHARE_NEEDED * (weight + sum(word.weight for word in rest))


def quotation(question: str, passages: Sequence[Passage], phrases: Phrases) -> Iterator[str]:
    """The answer in pieces: the lines that bear most on the question, then the sources of all passages."""
    weights = _weights(question, passages)
    scores = [_score(passage.terms, weights) for passage in passages]
    ranked = sorted(zip(scores, passages, strict=True), key=lambda scored: -scored[0])[:QUOTED_PASSAGES]
    yield phrases.passages
    for passage in (passage for score, passage in ranked if score >= QUOTED_SHARE * ranked[0][0]):
        yield f"\n\n{_marked(_excerpt(passage.text, weights), passage.number)}"
    yield f"\n\n{phrases.sources}"
    for passage in passages:
        title = f" — {passage.title}" if passage.title else ""
        yield f"\n[{passage.number}] {passage.source}{title}"


def _weights(question: str, passages: Sequence[Passage]) -> dict[str, float]:
    """Each term of the question by how few of the passages have it."""
    wanted = topic(question)
    having = Counter(term for passage in passages for term in passage.terms & wanted)
    return {term: math.log(1 + (len(passages) + 1) / (having[term] + 0.5)) for term in wanted if having[term]}


def _score(terms: frozenset[str], weights: dict[str, float]) -> float:
    return sum(weights.get(term, 0.0) for term in terms)


def _excerpt(text: str, weights: dict[str, float]) -> str:
    """The run of units around the best one, as long as it may be."""
    units = list(_units(text))
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
    return _joined(units[first : last + 1])


def _joined(units: list[Unit]) -> str:
    """The units as they stood: blocks on lines of their own, Chinese sentences without a space between them."""
    text = units[0].text
    for before, unit in pairwise(units):
        if before.is_block or unit.is_block:
            text += "\n"
        elif not before.text.endswith(_FULL_STOPS):
            text += " "
        text += unit.text
    return text


def _units(text: str) -> Iterator[Unit]:
    """Sentences; table rows, indented lines and fenced blocks whole."""
    block: list[str] = []
    prose: list[str] = []
    fenced = False
    for line in text.splitlines():
        fence = bool(_FENCE.match(line))
        if fenced or fence:
            if not fenced:
                yield from _sentences(prose)
            block.append(line)
            if fence and fenced:
                yield Unit("\n".join(block), is_block=True)
                block = []
            fenced = fenced != fence
        elif _ROW.match(line) or _CODE.match(line):
            yield from _sentences(prose)
            if not _RULE.match(line):
                yield Unit(line, is_block=True)
        elif line.strip():
            prose.append(_HEADING.sub("", line.strip()))
        else:
            yield from _sentences(prose)
    if block:
        yield Unit("\n".join(block), is_block=True)
    yield from _sentences(prose)


def _sentences(lines: list[str]) -> Iterator[Unit]:
    """The sentences of the lines gathered, which are then taken."""
    glue = "" if lines and is_chinese(lines[0]) else " "
    text = glue.join(lines)
    lines.clear()
    yield from (Unit(sentence.strip(), is_block=False) for sentence in _SENTENCE_END.split(text) if sentence.strip())


def _marked(excerpt: str, number: int) -> str:
    """The excerpt with its mark, on a line of its own after a block."""
    return (
        f"{excerpt}\n[{number}]"
        if excerpt.endswith(("```", "~~~", "|")) or excerpt.startswith("    ")
        else f"{excerpt} [{number}]"
    )
