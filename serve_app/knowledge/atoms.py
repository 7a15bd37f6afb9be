"""Into which smallest parts may a block be cut, and how much would each cut hurt?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve_app.knowledge.lines import has_cells, is_wrapped, rows, starts_item
from serve_app.knowledge.sentences import CRUMB_CHARACTERS, MAX_CHARACTERS, PART_CHARACTERS, Part, sentences

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve_app.knowledge.blocks import Block, Section

BETWEEN_BLOCKS, AFTER_LEAD_IN, BETWEEN_LINES = 0.05, 0.3, 0.15

LINE_CHARACTERS = 15_000
"""A longer line is no row or line that anybody reads, and no store takes it with its head: it is cut as prose is."""


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
    parts = ((part, _NO_FRAME) for part in _prose(block)) if prose else _framed(block)
    gap = "\n\n"
    for part, frame in parts:
        yield Atom(part.text, gap, cut, section, frame)
        gap, cut = part.gap, part.cut


def _framed(block: Block) -> Iterator[tuple[Part, Frame]]:
    lead, body, tail = _frame(block)
    frame = Frame("".join(f"{line}\n" for line in lead), "".join(f"\n{line}" for line in tail))
    room = MAX_CHARACTERS - len(frame.lead) - len(frame.tail)
    if not body or room < MAX_CHARACTERS // 2:
        body, frame = block.lines, _NO_FRAME
    for line in (line for row in body for line in ([row] if len(row) <= MAX_CHARACTERS else row.split("\n"))):
        if len(line) > LINE_CHARACTERS:
            yield from ((part, _NO_FRAME) for part in _item([line], flowing=True))
        else:
            fits_bare = room < len(line) <= MAX_CHARACTERS
            yield Part(line, "\n", BETWEEN_LINES), _NO_FRAME if fits_bare else frame


def _frame(block: Block) -> tuple[list[str], list[str], list[str]]:
    """The lines to repeat before, the lines to cut between, the lines to repeat after."""
    lines = block.lines
    if block.kind == "table":
        return lines[: block.head], lines[block.head :], []
    mark = lines[0].lstrip()[:3]
    if mark not in {"```", "~~~"}:
        return [], lines, []
    closed = lines[-1].lstrip().startswith(mark)
    body = lines[1:-1] if closed else lines[1:]
    return lines[:1], body, lines[-1:] if closed else []


def _prose(block: Block) -> Iterator[Part]:
    """Rows, code and list items as they are, and what is longer than an atom in parts."""
    found = rows(block.lines, block.left)
    flowing = is_wrapped([line for line, is_row in zip(block.lines, found, strict=True) if not is_row])
    item: list[str] = []
    for line, is_row in zip(block.lines, found, strict=True):
        if item and (is_row or starts_item(line)):
            yield from _item(item, flowing=flowing)
            item = []
        if is_row and len(line) <= (LINE_CHARACTERS if has_cells(line) else MAX_CHARACTERS):
            yield Part(line, "\n", BETWEEN_LINES)
        else:
            item.append(line)
    if item:
        yield from _item(item, flowing=flowing)


def _item(lines: list[str], *, flowing: bool) -> Iterator[Part]:
    """Whole, or by the lines that its author ended, or by sentences, lines joined as the author wrapped them."""
    text = "\n".join(lines)
    if len(text) <= PART_CHARACTERS:
        yield Part(text, "\n", BETWEEN_LINES)
    elif not flowing and len(lines) > 1:
        for line in lines:
            yield from _item([line], flowing=True)
    else:
        *parts, last = sentences(text)
        yield from parts
        yield Part(last.text, "\n", BETWEEN_LINES)
