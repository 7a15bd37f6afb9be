"""Where may running text be cut, if it must be?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CHARACTERS = 1200
"""No passage is longer, unless a single line of a table or of code is."""

PART_CHARACTERS = 400
"""A block up to this length is never cut; small enough that parts always combine to passages within the bounds."""

CRUMB_CHARACTERS = 50
"""A shorter part, such as a caption, stays with what follows it."""

BETWEEN_SENTENCES, BETWEEN_WORDS = 0.25, 0.6

_SENTENCE_END = re.compile(r"""(?:[.!?]["')\]”’]{0,3}(?=\s+[^\sa-z])|[。！？；]+[”’」』）]{0,3})\s*""")
_PAUSE = re.compile(r"[，、：\s]")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a text, what is between it and the next one, and what cutting there costs."""

    text: str
    gap: str
    cut: float


def sentences(text: str) -> Iterator[Part]:
    """The sentences, the short ones together, the long ones in parts."""
    start = 0
    for mark in _SENTENCE_END.finditer(text):
        if mark.end() - start < CRUMB_CHARACTERS:
            continue
        yield from _words(text, start, mark.end(), BETWEEN_SENTENCES)
        start = mark.end()
    if start < len(text):
        yield from _words(text, start, len(text), BETWEEN_SENTENCES)


def _words(text: str, start: int, end: int, cut: float) -> Iterator[Part]:
    """The text from `start` to `end`, in parts of `PART_CHARACTERS` that end where a word does."""
    while end - start > PART_CHARACTERS:
        stop = _word_end(text, start, end)
        yield _part(text[start:stop], BETWEEN_WORDS)
        start = stop
    if text[start:end].strip():
        yield _part(text[start:end], cut)


def _part(text: str, cut: float) -> Part:
    shown = text.rstrip()
    gap = text[len(shown) :]
    return Part(shown, "\n" if "\n" in gap else gap[:1], cut)


def _word_end(text: str, start: int, end: int) -> int:
    """Where to cut: after the last line, pause or Chinese character that fits, else after the first word.

    What is longer than a passage and has neither is no word, and is cut anywhere.
    """
    fits = start + PART_CHARACTERS
    half = start + PART_CHARACTERS // 2
    if (line_end := text.rfind("\n", half, fits)) >= 0:
        return line_end + 1
    for stop in range(fits, half, -1):
        if _PAUSE.match(text, stop - 1):
            return stop
    for stop in range(fits, start, -1):
        if text[stop - 1].isspace() or _wide(text[stop - 1]) or _wide(text[stop]):
            return stop
    for stop in range(fits, min(end, start + MAX_CHARACTERS)):
        if text[stop].isspace() or _wide(text[stop]):
            return stop
    return end if end - start <= MAX_CHARACTERS else fits


def _wide(character: str) -> bool:
    """Whether the script of the character puts no spaces between words."""
    return (
        "\u2e80" <= character <= "\u9fff"
        or "\uf900" <= character <= "\ufaff"
        or "\uff00" <= character <= "\uffef"
        or character >= "\U00020000"
    )
