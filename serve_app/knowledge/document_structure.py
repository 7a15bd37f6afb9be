"""Finds the structure of a text: headings, sections, blocks, rows, list items and sentences.

markdown-it-py (CommonMark and tables) says which lines are headings, code and tables; all other lines are prose. Only
its block rules run, so that time is linear in the length of the text and every line of it stays as it was written.

Lines of plain text and of Markdown paragraphs may be rows, code or running text; nothing marks which. Heuristics tell
them apart by indentation, aligned columns and the right margin.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from itertools import pairwise
from textwrap import dedent
from typing import TYPE_CHECKING, Literal

from markdown_it import MarkdownIt

from serve_app.terms import HAN, KANA

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from markdown_it.token import Token

HEADING_CHARACTERS = 200
"""A longer heading is prose, so that titles stay readable and bounded."""

MAX_NESTING = 20
"""Lists and quotations inside each other; deeper lines are prose."""

_FRAMING_RULES = 3
"""Above the head, below it and at the end, as databases print tables."""

_PARSER = MarkdownIt("commonmark", {"maxNesting": MAX_NESTING})
_PARSER.enable("table").disable(["inline", "text_join", "reference"])

_HTML_ROW = re.compile(r"\n(?=[ \t]*<tr\b)|(?<=>)(?=<tr\b)", re.IGNORECASE)
_GRID_RULE = re.compile(r"\s*\+(?=[:+]*[-=])[-=:+]++(?<=\+)\s*")

MAX_CHARACTERS = 1200
"""Limit of a passage; only a single line of a table or of code may be longer."""

PART_CHARACTERS = 400
"""A block up to this length is never cut. Fragments so short always combine to passages within the bounds."""

CRUMB_CHARACTERS = 50
"""A shorter fragment, such as a caption, stays with what follows it."""

BETWEEN_SENTENCES, BETWEEN_WORDS = 0.25, 0.6

_SENTENCE_END = re.compile(r"""(?:[.!?]["')\]”’]{0,3}(?=\s+[^\sa-z])|[。！？；]+[”’」』）]{0,3})\s*""")
_PAUSE = re.compile(r"[，、：\s]")

TAB_COLUMNS = 4
CODE_COLUMNS = 4
"""What is indented this far past the text around it is code."""

_LIST_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+")
_CELLS = re.compile(r"\||\t|<t[rdh]\b", re.IGNORECASE)
_LEAD = re.compile(r"\W*(?:\d{1,9}[.)]\s)?\W*")
_COLUMN_GAP = re.compile(r" {3}|[^\s.!?:;\"')\]”’] {2}")
"""Two spaces after a sentence are a typist's habit."""

_WORD = re.compile(rf"[^\W{HAN}{KANA}]\S*|\w{{1,3}}")
"""Chinese lines break between any two characters but not before a mark, hence three."""

_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, eq=False)
class Heading:
    """A heading of a document; equal to itself only, because two may read the same."""

    level: int
    text: str

    def __str__(self) -> str:
        return f"{'#' * self.level} {self.text}"


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Adjacent lines that belong together.

    Each item of `lines` is a line, or a table row of several lines. The first `head` items are the head of a table.
    Prose is indented by `left` columns.
    """

    kind: Literal["prose", "table", "code"]
    lines: list[str]
    head: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """The blocks directly under one heading; `path` leads to it from the top."""

    path: tuple[Heading, ...]
    blocks: list[Block] = field(default_factory=list)


def parse_text(text: str) -> list[Section]:
    """The paragraphs of a text without markup, in one section."""
    return [Section((), list(_paragraphs(dedent(text).splitlines(), is_markdown=False)))]


def parse_markdown(text: str) -> list[Section]:
    """The sections of a Markdown text in reading order; every section has blocks.

    A heading with nothing below it becomes a line of the section above it.
    """
    sections = [Section(())]
    for part in _parts("\n".join(text.splitlines())):
        if isinstance(part, Block):
            sections[-1].blocks.append(part)
            continue
        path = sections[-1].path
        if path and part.level <= path[-1].level and not sections[-1].blocks:
            _demote_last(sections)
        while path and path[-1].level >= part.level:
            path = path[:-1]
        sections.append(Section((*path, part)))
    if sections[-1].path and not sections[-1].blocks:
        _demote_last(sections)
    return [section for section in sections if section.blocks]


def _demote_last(sections: list[Section]) -> None:
    """Make the last section, which is empty, a line of the section above it."""
    empty = sections.pop()
    parent = empty.path[:-1]
    if not sections or sections[-1].path != parent:
        sections.append(Section(parent))
    sections[-1].blocks.append(Block("prose", [str(empty.path[-1])]))


def _parts(text: str) -> Iterator[Block | Heading]:
    lines = text.split("\n")
    at = 0
    for start, end, part in _find_markup(_PARSER.parse(text), lines):
        yield from _paragraphs(lines[at:start], is_markdown=True)
        yield part
        at = end
    yield from _paragraphs(lines[at:], is_markdown=True)


def _find_markup(tokens: Sequence[Token], lines: list[str]) -> Iterator[tuple[int, int, Block | Heading]]:
    """Headings, tables and code, each with its first line and the line after its last."""
    for at, token in enumerate(tokens):
        if token.map is None:
            continue
        start, end = token.map
        if token.type == "heading_open" and token.level == 0:
            content = tokens[at + 1].content
            title = " ".join(content.split())
            if title and "\n" not in content and len(lines[start]) <= HEADING_CHARACTERS:
                yield start, end, Heading(int(token.tag[1]), title)
        elif token.type == "table_open":
            yield start, end, Block("table", lines[start:end], head=2)
        elif token.type in {"fence", "code_block"} or (
            token.type == "html_block" and token.content.lstrip()[:4].lower() == "<pre"
        ):
            while end > start + 1 and not lines[end - 1].strip():
                end -= 1
            yield start, end, Block("code", lines[start:end])


def _paragraphs(lines: Sequence[str], *, is_markdown: bool) -> Iterator[Block]:
    """The blocks of prose, which empty lines separate."""
    paragraph: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield _paragraph(paragraph, indentation(paragraph[0]) if is_markdown else 0)
            paragraph = []


def _paragraph(lines: list[str], left: int) -> Block:
    """Prose, or a table that is drawn with '+---+' or made of HTML tags."""
    if _GRID_RULE.fullmatch(lines[0]) and len(lines) > 1:
        return _grid(lines)
    if lines[0].lstrip().startswith("<"):
        rows = _HTML_ROW.split("\n".join(lines))
        if len(rows) > 1:
            head = next((at + 1 for at, row in enumerate(rows[:2]) if "<th>" in row.lower()), 0)
            return Block("table", rows, head)
    return Block("prose", lines, left=left)


def _grid(lines: list[str]) -> Block:
    """A drawn table; rows have one line each where rules only frame the table."""
    rules = [at for at, line in enumerate(lines) if _GRID_RULE.fullmatch(line)]
    below_head = next((at for at in rules if "=" in lines[at]), 0)
    if not below_head and len(rules) <= _FRAMING_RULES:
        return Block("table", lines, rules[1] + 1 if len(rules) == _FRAMING_RULES else 1)
    ends = [at + 1 for at in rules if at >= below_head]
    ends += [len(lines)] if ends[-1] < len(lines) else []
    rows = ["\n".join(lines[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    return Block("table", rows, head=1)


@dataclass(frozen=True, slots=True)
class TextFragment:
    """A part of a text, the gap after it, and a cut's price there."""

    text: str
    gap: str
    cut: float


def sentences(text: str) -> Iterator[TextFragment]:
    """The sentences; short ones are joined, long ones are cut."""
    start = 0
    for mark in _SENTENCE_END.finditer(text):
        if mark.end() - start < CRUMB_CHARACTERS:
            continue
        yield from _split_words(text, start, mark.end(), BETWEEN_SENTENCES)
        start = mark.end()
    if start < len(text):
        yield from _split_words(text, start, len(text), BETWEEN_SENTENCES)


def _split_words(text: str, start: int, end: int, cut: float) -> Iterator[TextFragment]:
    """The text from `start` to `end`, in fragments of `PART_CHARACTERS` of whole words."""
    while end - start > PART_CHARACTERS:
        stop = _word_end(text, start, end)
        yield _part(text[start:stop], BETWEEN_WORDS)
        start = stop
    if text[start:end].strip():
        yield _part(text[start:end], cut)


def _part(text: str, cut: float) -> TextFragment:
    shown = text.rstrip()
    gap = text[len(shown) :]
    return TextFragment(shown, "\n" if "\n" in gap else gap[:1], cut)


def _word_end(text: str, start: int, end: int) -> int:
    """The place of a cut: after the last line, pause or wide character that fits.

    Without these the cut is after the first word. What is longer than a passage and has neither is cut anywhere.
    """
    fits = start + PART_CHARACTERS
    half = start + PART_CHARACTERS // 2
    if (line_end := text.rfind("\n", half, fits)) >= 0:
        return line_end + 1
    for stop in range(fits, half, -1):
        if _PAUSE.match(text, stop - 1):
            return stop
    for stop in range(fits, start, -1):
        if text[stop - 1].isspace() or is_wide(text[stop - 1]) or is_wide(text[stop]):
            return stop
    for stop in range(fits, min(end, start + MAX_CHARACTERS)):
        if text[stop].isspace() or is_wide(text[stop]):
            return stop
    return end if end - start <= MAX_CHARACTERS else fits


def is_wide(character: str) -> bool:
    """Whether the character is as wide as two Latin ones, as of scripts without spaces."""
    return bool(character) and unicodedata.east_asian_width(character) in "WF"


def text_width(text: str) -> int:
    """The width of a text in Latin characters."""
    return len(text) if text.isascii() else sum(2 if is_wide(character) else 1 for character in text)


def starts_item(line: str) -> bool:
    """Whether a list item begins with this line."""
    return _LIST_ITEM.match(line) is not None


def margin(line: str) -> int:
    """The column in which the text of the line, or of its list item, begins."""
    item = _LIST_ITEM.match(line)
    return len(item[0].expandtabs(TAB_COLUMNS)) if item else indentation(line)


def indentation(line: str) -> int:
    """How many columns the line is indented."""
    return len(line[: len(line) - len(line.lstrip())].expandtabs(TAB_COLUMNS))


def find_rows(lines: Sequence[str], left: int) -> list[bool]:
    """For each line, whether it is a table row or a line of code.

    The text around the lines begins in the column `left`.
    A bar or a gap may stand in a sentence too: they count where two adjacent lines have them, or most lines do.
    """
    if len(lines) == 1:
        return [False]
    celled = [has_cells(line) or has_gap(line) for line in lines]
    if sum(celled) * 2 > len(lines):
        return [True] * len(lines)
    adjacent = [False, *(one and other for one, other in pairwise(celled)), False]
    deep = _find_indented(lines, left)
    is_code = not is_wrapped([line for line, indented in zip(lines, deep, strict=True) if indented])
    return [adjacent[at] or adjacent[at + 1] or (deep[at] and is_code) for at in range(len(lines))]


def _find_indented(lines: Sequence[str], left: int) -> list[bool]:
    """For each line, whether it is indented as code is."""
    found = []
    for line in lines:
        column = margin(line)
        if starts_item(line):
            left = column
        found.append(column >= left + CODE_COLUMNS)
    return found


def has_cells(line: str) -> bool:
    """Whether marks in the line separate cells."""
    return _CELLS.search(line.strip()) is not None


def has_gap(line: str) -> bool:
    """Whether spaces in the line align what follows them."""
    shown = line.rstrip()
    lead = _LEAD.match(shown)
    return _COLUMN_GAP.search(shown, lead.end() if lead else 0) is not None


def is_wrapped(lines: Sequence[str]) -> bool:
    """Whether most of these lines were wrapped at the right margin."""
    widths = [text_width(line) for line in lines]
    full = sorted(widths)[len(widths) * 3 // 4] if widths else 0
    pairs = [at for at in range(len(lines) - 1) if not starts_item(lines[at + 1])]
    own = sum(_is_ended(lines[at], lines[at + 1], full - widths[at]) for at in pairs)
    return own * 2 <= len(pairs)


def _is_ended(line: str, following: str, room: int) -> bool:
    """Whether the author ended the line: the next word fits, or both begin alike."""
    word, first = _WORD.search(following), _WORD.search(line)
    if word is None or first is None:
        return False
    return 1 + text_width(word[0]) <= room or _DIGITS.sub("0", word[0]) == _DIGITS.sub("0", first[0])
