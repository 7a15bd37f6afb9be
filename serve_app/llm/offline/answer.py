"""Writes the answer from results of tools: values as they are, passages quoted with sources."""

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

    from serve_app.llm.offline.call_choice import CallResult, ChatTurn
    from serve_app.llm.offline.schema import BoundTool

RELAYED_CHARACTERS = 2_000
MAX_SUBJECT_CHARACTERS = 60
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
_BLOCK = re.compile(
    r"(^[ \t]*(?:```|~~~)(?:.|\n)*?(?:^[ \t]*(?:```|~~~).*$|\Z)"  # a fenced block
    r"|^[ \t]*\|.*\|[ \t]*$"  # a table row
    r"|^(?: {4}|\t|\$ |# (?=[a-z./])|> ).*$)",  # a line of code, or quoted
    re.MULTILINE,
)
_RULE = re.compile(r"^[\s|:+=-]+$")
_SENTENCE_END = re.compile(r"(?<=[。！？；])|(?<=[.!?])\s+(?=[A-Z\"'(\[])")
_FULL_STOPS = ("。", "！", "？", "；")
_HEADING = re.compile(r"^#{1,6}\s+")
_EMPTY_LINE = re.compile(r"\n[ \t]*\n")


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


def write_answer(turn: ChatTurn, tools: Sequence[BoundTool]) -> str:
    """Return a line for each result of the turn's calls, then quotes from all passages."""
    searches = {tool.name for tool in tools if tool.query}
    passages: list[QuotedPassage] = []
    queries: list[str] = []
    lines: list[str] = []
    for result in turn.results:
        is_search = result.call is None or result.call.name in searches  # an unknown call counts as one
        found = None if result.failed else _read_passages(result.content)
        if found is None or not (found or is_search):
            lines.append(_write_line(result, "" if is_search else _describe_call(result), turn.text))
        else:
            passages += found
            texts = [each for each in result.call.arguments.values() if isinstance(each, str)] if result.call else []
            queries.append(max(texts, key=len, default="") or turn.text)
    written = ["\n".join(dict.fromkeys(lines))] if lines else []
    if any(_answers_question(query, passages) for query in queries):
        written.append(_quote_passages(turn.text, queries, passages))
    elif queries:
        written.append(render_phrase("nothing_found", turn.text))
    return "\n\n".join(written)


def _write_line(result: CallResult, subject: str, question: str) -> str:
    if result.failed or result.content.startswith("error:"):
        return render_phrase("failed_for", question, subject) if subject else render_phrase("failed", question)
    text = _make_readable(result.content)
    if not text:
        return render_phrase("no_result", question)
    if subject and subject not in text:
        return render_phrase("result_for", question, subject, text)
    return render_phrase("result", question, text)


def _describe_call(result: CallResult) -> str:
    """Return the arguments of the call; empty where they are long."""
    subject = ", ".join(map(str, result.call.arguments.values())) if result.call else ""
    return subject if len(subject) <= MAX_SUBJECT_CHARACTERS else ""


def _make_readable(content: str) -> str:
    """Return plain text as it is, JSON as lines of names and values."""
    text = content.strip()
    if text[:1] in {"{", "[", '"'}:
        try:
            value = json.loads(text)
        except ValueError:
            return text[:RELAYED_CHARACTERS]
        rows = isinstance(value, list) and any(isinstance(each, dict | list) for each in value)
        text = "\n".join(f"- {_inline(each)}" for each in value) if rows else _inline(value)
    return text if len(text) <= RELAYED_CHARACTERS else f"{text[:RELAYED_CHARACTERS]} …"


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_inline(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_inline, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _read_passages(content: str) -> list[QuotedPassage] | None:
    """Return the passages that a tool's output lists; None where it is something else."""
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


def _answers_question(question: str, passages: Sequence[QuotedPassage]) -> bool:
    """Return whether the passages are about what is asked.

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


def _quote_passages(question: str, queries: Sequence[str], passages: Sequence[QuotedPassage]) -> str:
    """Return the best lines of the best passages, then the sources of all passages."""
    weights = _weigh_terms(" ".join([question, *queries]), passages)
    scores = [_score(passage.terms, weights) for passage in passages]
    ranked = sorted(zip(scores, passages, strict=True), key=lambda scored: -scored[0])[:QUOTED_PASSAGES]
    quoted = [passage for score, passage in ranked if score >= QUOTED_SHARE * ranked[0][0]]
    excerpts = [_add_mark(_excerpt(passage.text, weights), passage.number) for passage in quoted]
    sources = [
        f"[{each.number}] {each.source} — {each.title}" if each.title else f"[{each.number}] {each.source}"
        for each in passages
    ]
    sources.insert(0, render_phrase("sources", question))
    return "\n\n".join([render_phrase("passages", question), *excerpts, "\n".join(sources)])


def _weigh_terms(question: str, passages: Sequence[QuotedPassage]) -> dict[str, float]:
    """Return the weight of each term: the fewer passages have it, the more it counts."""
    wanted = content_terms(question) - ASKING_TERMS
    having = Counter(term for passage in passages for term in passage.terms & wanted)
    return {term: math.log(1 + (len(passages) + 1) / (count + 0.5)) for term, count in having.items()}


def _score(terms: frozenset[str], weights: dict[str, float]) -> float:
    return sum(weights.get(term, 0.0) for term in terms)


def _excerpt(text: str, weights: dict[str, float]) -> str:
    """Return the run of units around the best one, as long as it may be."""
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
    """Join units: blocks on lines of their own, Chinese sentences without a space."""
    text = units[0].text
    for before, unit in pairwise(units):
        gap = "\n" if before.is_block or unit.is_block else "" if before.text.endswith(_FULL_STOPS) else " "
        text += gap + unit.text
    return text


def _split_units(text: str) -> Iterator[TextUnit]:
    """Yield sentences; table rows, lines of code and fenced blocks whole."""
    for place, part in enumerate(_BLOCK.split(text)):
        if place % 2:
            if not _RULE.match(part):
                yield TextUnit(part, is_block=True)
            continue
        for paragraph in _EMPTY_LINE.split(part):
            lines = [_HEADING.sub("", line.strip()) for line in paragraph.splitlines() if line.strip()]
            prose = ("" if lines and is_chinese(lines[0]) else " ").join(lines)
            yield from (TextUnit(each.strip(), is_block=False) for each in _SENTENCE_END.split(prose) if each.strip())


def _add_mark(excerpt: str, number: int) -> str:
    """Return the excerpt with its mark, on a line of its own after a block."""
    is_block = excerpt.endswith(("```", "~~~", "|")) or excerpt.startswith("    ")
    return f"{excerpt}\n[{number}]" if is_block else f"{excerpt} [{number}]"
