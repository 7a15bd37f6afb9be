"""Into which smallest parts may a block be cut, and how much would each cut hurt?"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from serve_app.knowledge.blocks import starts_item

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve_app.knowledge.blocks import Block, Section

MAX_CHARACTERS = 1200
"""No passage is longer, unless a single line of a table or of code is."""

ATOM_CHARACTERS = 400
"""A block up to this length is never cut; small enough that parts always combine to passages within the bounds."""

CRUMB_CHARACTERS = 50
"""A shorter part, such as a caption, stays with what follows it."""

LINE_CHARACTERS = 16_000
"""A longer line is no row or line that anybody reads, and no store takes it: it is cut as prose is."""

BETWEEN_BLOCKS, AFTER_LEAD_IN, BETWEEN_LINES, BETWEEN_SENTENCES, BETWEEN_WORDS = 0.05, 0.3, 0.15, 0.25, 0.6

_SENTENCE_END = re.compile(r"""(?:[.!?]["')\]”’]{0,3}(?=\s+[^\sa-z])|[。！？；]+[”’」』）]{0,3})\s*""")
_PAUSE = re.compile(r"[，、：\s]")


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """What surrounds the lines of a block wherever some of them are shown: a table's head, a fence."""

    lead: str = ""
    tail: str = ""


_NO_FRAME = Frame()


@dataclass(frozen=True, slots=True, eq=False)
class Atom:
    """Text that is not cut; `gap` stands between it and the atom before, `cut` is what cutting there costs."""

    text: str
    gap: str
    cut: float
    section: Section
    frame: Frame = _NO_FRAME


def atoms(section: Section) -> list[Atom]:
    """The parts of a section, in order."""
    found: list[Atom] = []
    for block in section.blocks:
        for atom in _of_block(block, section):
            before = found[-1] if found else None
            if before and _belongs(before, atom):
                text = before.text + atom.gap + atom.text
                found[-1] = Atom(text, before.gap, before.cut, section, before.frame)
            elif before and atom.gap == "\n\n" and before.text.endswith((":", "：")):
                found.append(replace(atom, cut=AFTER_LEAD_IN))
            else:
                found.append(atom)
    return found


def _belongs(crumb: Atom, atom: Atom) -> bool:
    short = len(crumb.text) < CRUMB_CHARACTERS and len(atom.text) <= ATOM_CHARACTERS
    return short and crumb.frame is atom.frame


def _of_block(block: Block, section: Section) -> Iterator[Atom]:
    whole = "\n".join(block.lines).strip("\n")
    if len(whole) <= ATOM_CHARACTERS:
        yield Atom(whole, "\n\n", BETWEEN_BLOCKS, section)
        return
    parts = _prose(block.lines) if block.kind == "prose" else _framed(block)
    gap, cut = "\n\n", BETWEEN_BLOCKS
    for part in parts:
        yield Atom(part.text, gap, cut, section, part.frame)
        gap, cut = part.gap, part.cut


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a block, and what is between it and the next one."""

    text: str
    gap: str
    cut: float
    frame: Frame = _NO_FRAME


def _framed(block: Block) -> Iterator[_Part]:
    lead, body, tail = _frame(block)
    room = MAX_CHARACTERS - sum(len(line) + 1 for line in lead + tail)
    frame = Frame("".join(f"{line}\n" for line in lead), "".join(f"\n{line}" for line in tail))
    if not body or len(body[0]) > room:
        body, frame = block.lines, _NO_FRAME
    for line in body:
        if len(line) > LINE_CHARACTERS:
            yield from _item(line)
        else:
            yield _Part(line, "\n", BETWEEN_LINES, frame if len(line) <= room else _NO_FRAME)


def _frame(block: Block) -> tuple[list[str], list[str], list[str]]:
    """The lines to repeat before, the lines to cut between, the lines to repeat after."""
    lines = block.lines
    if block.kind == "table":
        return lines[:2], lines[2:], []
    mark = lines[0].lstrip()[:3]
    if mark not in {"```", "~~~"}:
        return [], lines, []
    closed = lines[-1].lstrip().startswith(mark)
    body = lines[1:-1] if closed else lines[1:]
    return lines[:1], body, lines[-1:] if closed else []


def _prose(lines: list[str]) -> Iterator[_Part]:
    """List items as they are; what is longer than an atom by sentences, lines joined as the author wrapped them."""
    item: list[str] = []
    for line in lines:
        if item and starts_item(line):
            yield from _item("\n".join(item))
            item = []
        item.append(line)
    yield from _item("\n".join(item))


def _item(text: str) -> Iterator[_Part]:
    if len(text) <= ATOM_CHARACTERS:
        yield _Part(text, "\n", BETWEEN_LINES)
        return
    *parts, last = _sentences(text)
    yield from parts
    yield _Part(last.text, "\n", BETWEEN_LINES)


def _sentences(text: str) -> Iterator[_Part]:
    start = 0
    for mark in _SENTENCE_END.finditer(text):
        if mark.end() - start < CRUMB_CHARACTERS:
            continue
        yield from _words(text, start, mark.end(), BETWEEN_SENTENCES)
        start = mark.end()
    if start < len(text):
        yield from _words(text, start, len(text), BETWEEN_SENTENCES)


def _words(text: str, start: int, end: int, cut: float) -> Iterator[_Part]:
    """The text from `start` to `end`, in parts of `ATOM_CHARACTERS` that end where a word does."""
    while end - start > ATOM_CHARACTERS:
        stop = _word_end(text, start, end)
        yield _part(text[start:stop], BETWEEN_WORDS)
        start = stop
    if text[start:end].strip():
        yield _part(text[start:end], cut)


def _part(text: str, cut: float) -> _Part:
    shown = text.rstrip()
    gap = text[len(shown) :]
    return _Part(shown, "\n" if "\n" in gap else gap[:1], cut)


def _word_end(text: str, start: int, end: int) -> int:
    """Where to cut: after the last line, pause or Chinese character that fits, else after the first word.

    What is longer than a passage and has neither is no word, and is cut anywhere.
    """
    fits = start + ATOM_CHARACTERS
    half = start + ATOM_CHARACTERS // 2
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
