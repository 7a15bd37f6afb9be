"""Which blocks does a text consist of, and under which headings do they stand?"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADING_CHARACTERS = 200
"""A longer line is a paragraph whatever stands before it: titles stay readable and bounded."""

_ATX = re.compile(r" {0,3}(#{1,6})[ \t]")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_LIST_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]")
_INDENTED = ("    ", "\t")


@dataclass(frozen=True, slots=True, eq=False)
class Heading:
    """Equal to itself only: two headings may read the same."""

    level: int
    text: str

    def __str__(self) -> str:
        return f"{'#' * self.level} {self.text}"


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Adjacent lines that belong together; tables and code are never cut inside a line."""

    kind: Literal["prose", "table", "code"]
    lines: list[str]


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """The blocks that stand directly under one heading; `path` leads to it from the top."""

    path: tuple[Heading, ...]
    blocks: list[Block] = field(default_factory=list)


def starts_item(line: str) -> bool:
    """Whether a list item begins with this line."""
    return _LIST_ITEM.match(line) is not None


def plain(text: str) -> list[Section]:
    """The paragraphs of a text without markup, in one section."""
    section = Section(())
    lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.strip():
            lines.append(line)
        elif lines:
            section.blocks.append(Block("prose", lines))
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
    at = 0
    in_list = False
    while at < len(lines):
        line = lines[at]
        if not line.strip():
            at += 1
            continue
        if heading := _atx(line):
            end, in_list = at + 1, False
            yield heading
        elif mark := _fence(line):
            end = _fence_end(lines, at, mark)
            yield Block("code", lines[at:end])
        elif line.startswith(_INDENTED) and not in_list:
            end = _indented_end(lines, at)
            yield Block("code", lines[at:end])
        elif _starts_table(lines, at):
            end, in_list = _table_end(lines, at), False
            yield Block("table", lines[at:end])
        elif setext := _setext(lines, at):
            end, in_list = at + 2, False
            yield setext
        else:
            end = _prose_end(lines, at)
            in_list = starts_item(line) or (in_list and line.startswith((" ", "\t")))
            yield Block("prose", lines[at:end])
        at = end


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


def _indented_end(lines: list[str], at: int) -> int:
    end = at
    while end < len(lines) and lines[end].startswith(_INDENTED) and lines[end].strip():
        end += 1
    return end


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
