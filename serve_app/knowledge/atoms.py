"""Into which smallest parts may a block be cut, and how much would each cut hurt?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve_app.knowledge.blocks import starts_item
from serve_app.knowledge.sentences import CRUMB_CHARACTERS, MAX_CHARACTERS, PART_CHARACTERS, Part, sentences

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve_app.knowledge.blocks import Block, Section

BETWEEN_BLOCKS, AFTER_LEAD_IN, BETWEEN_LINES = 0.05, 0.3, 0.15

LINE_CHARACTERS = 16_000
"""A longer line is no row or line that anybody reads, and no store takes it: it is cut as prose is."""


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
    for previous, block in zip([None, *section.blocks], section.blocks, strict=False):
        cut = AFTER_LEAD_IN if previous is not None and _introduces(previous, block) else BETWEEN_BLOCKS
        for atom in _of_block(block, section, cut):
            before = found[-1] if found else None
            if before and _belongs(before, atom):
                text = before.text + atom.gap + atom.text
                found[-1] = Atom(text, before.gap, before.cut, section, before.frame)
            else:
                found.append(atom)
    return found


def _introduces(previous: Block, block: Block) -> bool:
    """Whether a paragraph says what the list, the table or the code below it is."""
    if previous.kind != "prose" or starts_item(previous.lines[0]):
        return False
    return block.kind != "prose" or starts_item(block.lines[0]) or previous.lines[-1].rstrip().endswith((":", "："))


def _belongs(crumb: Atom, atom: Atom) -> bool:
    short = len(crumb.text) < CRUMB_CHARACTERS and len(atom.text) <= PART_CHARACTERS
    return short and crumb.frame is atom.frame


def _of_block(block: Block, section: Section, cut: float) -> Iterator[Atom]:
    whole = "\n".join(block.lines).strip("\n")
    if len(whole) <= PART_CHARACTERS:
        yield Atom(whole, "\n\n", cut, section)
        return
    prose = block.kind == "prose"
    parts = ((part, _NO_FRAME) for part in _prose(block.lines)) if prose else _framed(block)
    gap = "\n\n"
    for part, frame in parts:
        yield Atom(part.text, gap, cut, section, frame)
        gap, cut = part.gap, part.cut


def _framed(block: Block) -> Iterator[tuple[Part, Frame]]:
    lead, body, tail = _frame(block)
    room = MAX_CHARACTERS - sum(len(line) + 1 for line in lead + tail)
    frame = Frame("".join(f"{line}\n" for line in lead), "".join(f"\n{line}" for line in tail))
    if not body or len(body[0]) > room:
        body, frame = block.lines, _NO_FRAME
    for line in body:
        if len(line) > LINE_CHARACTERS:
            yield from ((part, _NO_FRAME) for part in _item(line))
        else:
            yield Part(line, "\n", BETWEEN_LINES), frame if len(line) <= room else _NO_FRAME


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


def _prose(lines: list[str]) -> Iterator[Part]:
    """List items as they are; what is longer than an atom by sentences, lines joined as the author wrapped them."""
    item: list[str] = []
    for line in lines:
        if item and starts_item(line):
            yield from _item("\n".join(item))
            item = []
        item.append(line)
    yield from _item("\n".join(item))


def _item(text: str) -> Iterator[Part]:
    if len(text) <= PART_CHARACTERS:
        yield Part(text, "\n", BETWEEN_LINES)
        return
    *parts, last = sentences(text)
    yield from parts
    yield Part(last.text, "\n", BETWEEN_LINES)
