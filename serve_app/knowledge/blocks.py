"""Which blocks does a text consist of, and under which headings do they stand?"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from textwrap import dedent
from typing import TYPE_CHECKING, Literal

from serve_app.knowledge.lines import CODE_COLUMNS, indentation, margin, starts_item

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADING_CHARACTERS = 200
"""A longer line is a paragraph whatever stands before it: titles stay readable and bounded."""

_ATX = re.compile(r" {0,3}(#{1,6})[ \t]")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_PRE = re.compile(r" {0,3}<pre\b", re.IGNORECASE)
_HTML_ROW = re.compile(r"\n(?=[ \t]*<tr\b)|(?<=>)(?=<tr\b)", re.IGNORECASE)
_GRID_RULE = re.compile(r"\s*\+(?=[:+]*[-=])[-=:+]++(?<=\+)\s*")

_FRAMING_RULES = 3
"""Above the head, below it and at the end, as databases print tables."""


@dataclass(frozen=True, slots=True, eq=False)
class Heading:
    """Equal to itself only: two headings may read the same."""

    level: int
    text: str

    def __str__(self) -> str:
        return f"{'#' * self.level} {self.text}"


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Adjacent lines that belong together; tables and code are never cut inside one, which of a table is a row.

    The first `head` lines say what the others are. Prose begins in the column `left`.
    """

    kind: Literal["prose", "table", "code"]
    lines: list[str]
    head: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """The blocks that stand directly under one heading; `path` leads to it from the top."""

    path: tuple[Heading, ...]
    blocks: list[Block] = field(default_factory=list)


def plain(text: str) -> list[Section]:
    """The paragraphs of a text without markup, in one section."""
    section = Section(())
    lines: list[str] = []
    for line in [*dedent(text).splitlines(), ""]:
        if line.strip():
            lines.append(line)
        elif lines:
            section.blocks.append(_paragraph(lines, 0))
            lines = []
    return [section]


def markdown(text: str) -> list[Section]:
    """The sections of a Markdown text in reading order.

    A heading with nothing below it becomes a line of the section above it, so every section has blocks.
    """
    sections = [Section(())]
    for found in _blocks(text.splitlines()):
        if isinstance(found, Block):
            sections[-1].blocks.append(found)
            continue
        path = sections[-1].path
        if path and found.level <= path[-1].level and not sections[-1].blocks:
            _demote(sections)
        while path and path[-1].level >= found.level:
            path = path[:-1]
        sections.append(Section((*path, found)))
    if sections[-1].path and not sections[-1].blocks:
        _demote(sections)
    return [section for section in sections if section.blocks]


def _demote(sections: list[Section]) -> None:
    empty = sections.pop()
    parent = empty.path[:-1]
    if not sections or sections[-1].path != parent:
        sections.append(Section(parent))
    sections[-1].blocks.append(Block("prose", [str(empty.path[-1])]))


def _blocks(lines: list[str]) -> Iterator[Block | Heading]:
    at = left = 0
    while at < len(lines):
        line = lines[at]
        if not line.strip():
            at += 1
            continue
        if heading := _atx(line):
            end, left = at + 1, 0
            yield heading
        elif end := _code_end(lines, at, left):
            yield Block("code", lines[at:end])
        elif _starts_table(lines, at):
            end, left = _table_end(lines, at), min(left, indentation(line))
            yield Block("table", lines[at:end], head=2)
        elif setext := _setext(lines, at):
            end, left = at + 2, 0
            yield setext
        else:
            end, left = _prose_end(lines, at), min(left, indentation(line))
            yield _paragraph(lines[at:end], left)
            left = next((margin(line) for line in reversed(lines[at:end]) if starts_item(line)), left)
        at = end


def _paragraph(lines: list[str], left: int) -> Block:
    """Prose, or a table that is drawn or tagged and not marked up."""
    if _GRID_RULE.fullmatch(lines[0]) and len(lines) > 1:
        return _grid(lines)
    if lines[0].lstrip().startswith("<"):
        rows = _HTML_ROW.split("\n".join(lines))
        if len(rows) > 1:
            head = next((at + 1 for at, row in enumerate(rows[:2]) if "<th>" in row.lower()), 0)
            return Block("table", rows, head)
    return Block("prose", lines, left=left)


def _grid(lines: list[str]) -> Block:
    """A table between rules of '+---+': rows of several lines, or one to a line where rules only frame the whole."""
    rules = [at for at, line in enumerate(lines) if _GRID_RULE.fullmatch(line)]
    below_head = next((at for at in rules if "=" in lines[at]), 0)
    if not below_head and len(rules) <= _FRAMING_RULES:
        return Block("table", lines, rules[1] + 1 if len(rules) == _FRAMING_RULES else 1)
    ends = [at + 1 for at in rules if at >= below_head]
    ends += [len(lines)] if ends[-1] < len(lines) else []
    rows = ["\n".join(lines[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    return Block("table", rows, head=1)


def _atx(line: str) -> Heading | None:
    mark = _ATX.match(line)
    if mark is None or len(line) > HEADING_CHARACTERS:
        return None
    text = line[mark.end() :].strip()
    unclosed = text.rstrip("#")
    if unclosed != text and (not unclosed or unclosed[-1].isspace()):
        text = unclosed.rstrip()
    return Heading(len(mark[1]), " ".join(text.split())) if text else None


def _setext(lines: list[str], at: int) -> Heading | None:
    """A line and its underline; of several lines above a rule none is the heading, for readers nor for us."""
    if at + 1 == len(lines) or len(lines[at]) > HEADING_CHARACTERS or starts_item(lines[at]):
        return None
    underline = lines[at + 1].strip()
    if not underline or underline.strip(underline[0]) or underline[0] not in "=-":
        return None
    text = " ".join(lines[at].split())
    return Heading(1 if underline[0] == "=" else 2, text) if text.strip("=-*_ ") else None


def _code_end(lines: list[str], at: int, left: int) -> int:
    """Where the code ends that begins here, or 0; `left` is where the text of the list item around it begins."""
    line = lines[at]
    if mark := _fence(line):
        return _fence_end(lines, at, mark)
    if _PRE.match(line):
        closing = (end for end in range(at, len(lines)) if "</pre>" in lines[end].lower())
        return next(closing, len(lines) - 1) + 1
    if left and starts_item(line):
        return 0
    end = at
    while end < len(lines) and lines[end].strip() and indentation(lines[end]) >= left + CODE_COLUMNS:
        end += 1
    return end if end > at else 0


def _fence(line: str) -> str:
    """The marks that open fenced code, or nothing; backticks further on make it code inside a sentence."""
    opening = _FENCE.match(line)
    if opening is None or (opening[1][0] == "`" and "`" in line[opening.end() :]):
        return ""
    return opening[1]


def _fence_end(lines: list[str], at: int, mark: str) -> int:
    for end in range(at + 1, len(lines)):
        line = lines[end].strip()
        if line.startswith(mark) and not line.strip(mark[0]):
            return end + 1
    return len(lines)


def _starts_table(lines: list[str], at: int) -> bool:
    if "|" not in lines[at] or at + 1 == len(lines):
        return False
    rule = lines[at + 1]
    return "-" in rule and "|" in rule and not rule.strip("|:- \t")


def _table_end(lines: list[str], at: int) -> int:
    end = at + 2
    while end < len(lines) and "|" in lines[end]:
        end += 1
    return end


def _prose_end(lines: list[str], at: int) -> int:
    end = at + 1
    while (
        end < len(lines)
        and lines[end].strip()
        and not _atx(lines[end])
        and not _fence(lines[end])
        and not _starts_table(lines, end)
    ):
        end += 1
    return end
