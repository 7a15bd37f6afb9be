"""Which lines of a paragraph are rows or code, and which run on in the next?"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

TAB_COLUMNS = 4
CODE_COLUMNS = 4
"""What is indented this far past the text around it is code."""

_LIST_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+")
_CELLS = re.compile(r"\||\t|<t[rdh]\b", re.IGNORECASE)
_LEAD = re.compile(r"\W*(?:\d{1,9}[.)]\s)?\W*")
_COLUMN_GAP = re.compile(r" {3}|[^\s.!?:;\"')\]”’] {2}")
"""Two spaces after a sentence are a typist's habit."""

_WORD = re.compile(r"[^\W\u2e80-\u9fff\uf900-\uffef]\S*|\w{1,3}")
"""Chinese lines break between any two characters but not before a mark, hence three."""

_DIGITS = re.compile(r"\d+")


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


def rows(lines: Sequence[str], left: int) -> list[bool]:
    """Of each line, whether it is a table's row or a line of code; the text around begins in the column `left`.

    A bar or a gap may stand in a sentence too: they count where two adjacent lines have them, or most lines do.
    """
    if len(lines) == 1:
        return [False]
    celled = [has_cells(line) or has_gap(line) for line in lines]
    if sum(celled) * 2 > len(lines):
        return [True] * len(lines)
    adjacent = [False, *(one and other for one, other in pairwise(celled)), False]
    deep = _deep(lines, left)
    is_code = not is_wrapped([line for line, indented in zip(lines, deep, strict=True) if indented])
    return [adjacent[at] or adjacent[at + 1] or (deep[at] and is_code) for at in range(len(lines))]


def _deep(lines: Sequence[str], left: int) -> list[bool]:
    """Of each line, whether it is indented as code in the text or the list item around it."""
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
    """Whether the right margin has ended most of these lines, and not their author."""
    widths = [_columns(line) for line in lines]
    full = sorted(widths)[len(widths) * 3 // 4] if widths else 0
    pairs = [at for at in range(len(lines) - 1) if not starts_item(lines[at + 1])]
    own = sum(_ends(lines[at], lines[at + 1], full - widths[at]) for at in pairs)
    return own * 2 <= len(pairs)


def _ends(line: str, following: str, room: int) -> bool:
    """Whether the word that follows would have had room in the line, or both lines begin alike."""
    word, first = _WORD.search(following), _WORD.search(line)
    if word is None or first is None:
        return False
    return 1 + _columns(word[0]) <= room or _DIGITS.sub("0", word[0]) == _DIGITS.sub("0", first[0])


def _columns(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
