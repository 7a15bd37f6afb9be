"""Parses a document into sections: blocks of lines under their path of headings.

markdown-it-py (CommonMark and tables) says which lines are headings, code and tables; all other lines are prose. Only
its block rules run, so that time is linear in the length of the text and every line of it stays as it was written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from textwrap import dedent
from typing import TYPE_CHECKING, Literal

from markdown_it import MarkdownIt

from serve_app.knowledge.text_lines import indentation

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
