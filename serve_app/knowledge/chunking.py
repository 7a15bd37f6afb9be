"""Splits a document into passages of 200 to 1200 characters, and weighs their terms.

A document becomes units that are not cut, each with the price of a cut before it. One packer then finds the cheapest
partition: passages near the target length, cut where it hurts least, across headings only where a passage would be too
short without.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING

from serve_app.knowledge.bm25 import passage_weights
from serve_app.knowledge.document_structure import (
    CRUMB_CHARACTERS,
    MAX_CHARACTERS,
    PART_CHARACTERS,
    Heading,
    TextFragment,
    find_rows,
    has_cells,
    is_wrapped,
    parse_markdown,
    parse_text,
    sentences,
    starts_item,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from serve_app.knowledge.document_structure import Block, Section
    from serve_app.values import Document

MIN_CHARACTERS = 200
"""A shorter passage says too little by itself: it joins a neighbour that has room."""

TARGET_CHARACTERS = 800
"""One topic of a manual, and short enough that the model can read several."""

LINE_CHARACTERS = 15_000
"""A longer line is cut as prose is: nobody reads it as one row, and no store takes it with its head."""

BETWEEN_BLOCKS, AFTER_LEAD_IN, BETWEEN_LINES, BEFORE_SHORT_SECTION = 0.05, 0.3, 0.15, 0.3
"""Prices of a cut; a passage that misses the target by its whole length costs 1."""

ACROSS_SECTIONS, KINSHIP_LEVELS = 1.2, 3
"""Price of a passage that goes on across a heading: more than the misfits of two passages.

It more than doubles for each level of headings that the two sections do not share.
"""

TOO_SHORT = 100.0
"""Price of a passage below the minimum: more than any heading and any number of bad cuts."""

ENTRY_CHARACTERS = 16_000
"""Milvus takes 64 KB in a text field, at most four bytes a character. Only a single line can be longer."""

Path = tuple[Heading, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage before it is indexed; `title` is the headings above all of `text`."""

    title: str
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Lines around each part of a cut block: a table's head, a code fence."""

    lead: str = ""
    tail: str = ""


_NO_FRAME = Frame()


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """Text that is not cut.

    `gap` stands between it and the unit before; `cut` is the price of a cut there.
    """

    text: str
    gap: str
    cut: float
    path: Path
    frame: Frame = _NO_FRAME

    @property
    def size(self) -> int:
        """Characters of a passage of this unit alone."""
        return len(self.frame.lead) + len(self.text) + len(self.frame.tail)


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A passage with its weights, ready to be stored."""

    title: str
    text: str
    weights: dict[int, float]


def make_index_entries(document: Document) -> list[IndexEntry]:
    """The entries of `document`, without passages that have no term.

    This takes CPU time: do not call it on an event loop.
    """
    pieces = [
        (piece.title[:ENTRY_CHARACTERS], piece.text[start : start + ENTRY_CHARACTERS])
        for piece in split_document(document)
        for start in range(0, len(piece.text), ENTRY_CHARACTERS)
    ]
    weighed = [IndexEntry(title, text, passage_weights(title, text)) for title, text in pieces]
    return [entry for entry in weighed if entry.weights]


def split_document(document: Document) -> list[Chunk]:
    """The passages of a document, in order; nothing is lost.

    A passage is longer than 1200 characters where one line of a table or of code is, and shorter than 200 where no
    neighbour has room for it.
    """
    sections = parse_markdown(document.text) if document.format == "markdown" else parse_text(document.text)
    title = " ".join(document.title.split())
    root = next((section.path[0] for section in sections if section.path and section.path[0].text == title), None)
    units = [unit for section in sections for unit in _section_units(section)]
    return [_make_chunk(passage, root or Heading(1, title)) for passage in _pack(units)]


def _pack(units: Sequence[Unit]) -> list[Sequence[Unit]]:
    """The cheapest partition of the units into passages, by dynamic programming over their ends."""
    joints = [_joint(*pair) for pair in pairwise(units)]
    best = [0.0] + [inf] * len(units)
    origin = [0] * (len(units) + 1)
    for first, head in enumerate(units):
        size = longest = head.size
        price = best[first] + head.cut
        before_heading = after_heading = 0
        for last in range(first, len(units)):
            if last > first:
                added, crossing = joints[last - 1]
                if crossing and not before_heading and size >= MIN_CHARACTERS:
                    before_heading = size
                after_heading += added if before_heading else 0
                if before_heading and after_heading >= 2 * MIN_CHARACTERS:
                    break  # two passages, cut at that heading, are always cheaper
                size += added
                price += crossing
                longest = max(longest, units[last].size)
                if not _fits(size, longest):
                    break
            off = (min(size, MAX_CHARACTERS) - TARGET_CHARACTERS) / TARGET_CHARACTERS
            cost = price + off * off + (TOO_SHORT if size < MIN_CHARACTERS else 0.0)
            if cost < best[last + 1]:
                best[last + 1], origin[last + 1] = cost, first
    passages, end = [], len(units)
    while end:
        passages.append(units[origin[end] : end])
        end = origin[end]
    return passages[::-1]


def _joint(before: Unit, unit: Unit) -> tuple[int, float]:
    """The characters that `unit` adds after `before`, and the price of headings between them."""
    if before.path == unit.path:
        return len(unit.gap) + (len(unit.text) if before.frame is unit.frame else unit.size), 0.0
    common = len(_common(before.path, unit.path))
    price = ACROSS_SECTIONS * 2.1 ** max(0, KINSHIP_LEVELS - common)
    return len(_headings(before.path, unit.path)) + unit.size, price


def _fits(size: int, longest: int) -> bool:
    """Whether a passage may be so long.

    A line that is longer than a passage is joined by neighbours that are too short alone.
    """
    return size <= MAX_CHARACTERS or (longest > MAX_CHARACTERS and size - longest < MIN_CHARACTERS)


def _make_chunk(units: Sequence[Unit], root: Heading) -> Chunk:
    """The passage under the headings that its units share; other headings stand in its text."""
    path = own = units[0].path
    for unit in units:
        path = _common(path, unit.path)
    missing, text = _headings(path, own).lstrip(), _join(units)
    if len(text) + len(missing) > MAX_CHARACTERS or not (path or root.text):
        path, missing = own, ""
    titled = path if not root.text or (path and path[0].text == root.text) else (root, *path)
    return Chunk(" > ".join(heading.text for heading in titled), missing + text)


def _join(units: Sequence[Unit]) -> str:
    written = [units[0].frame.lead, units[0].text]
    for before, unit in pairwise(units):
        if before.frame is unit.frame and before.path == unit.path:
            written += (unit.gap, unit.text)
            continue
        gap = unit.gap if before.path == unit.path else _headings(before.path, unit.path)
        written += (before.frame.tail, gap, unit.frame.lead, unit.text)
    return "".join([*written, units[-1].frame.tail])


def _common(one: Path, other: Path) -> Path:
    depth = 0
    while depth < min(len(one), len(other)) and one[depth] is other[depth]:
        depth += 1
    return one[:depth]


def _headings(before: Path, path: Path) -> str:
    """The headings of `path` that are not in `before`, as they stand inside a passage."""
    return "\n\n" + "".join(f"{heading}\n\n" for heading in path[len(_common(before, path)) :])


def _section_units(section: Section) -> list[Unit]:
    """The units of a section; a very short unit is joined to the next."""
    units: list[Unit] = []
    is_short = sum(len(line) for block in section.blocks for line in block.lines) < MIN_CHARACTERS
    cut = BEFORE_SHORT_SECTION if is_short else 0.0
    for previous, block in zip([None, *section.blocks], section.blocks, strict=False):
        if previous is not None:
            cut = AFTER_LEAD_IN if _introduces(previous, block) else BETWEEN_BLOCKS
        for part, frame in _block_parts(block, cut):
            crumb = units[-1] if units else None
            if (
                crumb
                and len(crumb.text) < CRUMB_CHARACTERS
                and len(part.text) <= PART_CHARACTERS
                and crumb.frame is frame
            ):
                text = crumb.text + part.gap + part.text
                units[-1] = Unit(text, crumb.gap, crumb.cut, section.path, frame)
            else:
                units.append(Unit(part.text, part.gap, part.cut, section.path, frame))
    return units


def _introduces(previous: Block, block: Block) -> bool:
    """Whether `previous` is a paragraph that introduces a list, a table or code."""
    if previous.kind != "prose" or starts_item(previous.lines[0]):
        return False
    return block.kind != "prose" or starts_item(block.lines[0]) or previous.lines[-1].rstrip().endswith((":", "："))


def _block_parts(block: Block, cut: float) -> Iterator[tuple[TextFragment, Frame]]:
    """The fragments of a block, each with the gap and the cut before it."""
    whole = "\n".join(block.lines).strip("\n")
    if len(whole) <= PART_CHARACTERS:
        yield TextFragment(whole, "\n\n", cut), _NO_FRAME
        return
    gap = "\n\n"
    for part, frame in _prose_parts(block) if block.kind == "prose" else _framed_parts(block):
        yield TextFragment(part.text, gap, cut), frame
        gap, cut = part.gap, part.cut


def _framed_parts(block: Block) -> Iterator[tuple[TextFragment, Frame]]:
    """The lines of a table or of code, and the frame around them."""
    lead, body, tail = _frame_lines(block)
    frame = Frame("".join(f"{line}\n" for line in lead), "".join(f"\n{line}" for line in tail))
    room = MAX_CHARACTERS - len(frame.lead) - len(frame.tail)
    if not body or room < MAX_CHARACTERS // 2:
        body, frame = block.lines, _NO_FRAME
    for line in (line for row in body for line in ([row] if len(row) <= MAX_CHARACTERS else row.split("\n"))):
        if len(line) > LINE_CHARACTERS:
            yield from ((part, _NO_FRAME) for part in _item_parts([line], flowing=True))
        else:
            fits_bare = room < len(line) <= MAX_CHARACTERS
            yield TextFragment(line, "\n", BETWEEN_LINES), _NO_FRAME if fits_bare else frame


def _frame_lines(block: Block) -> tuple[list[str], list[str], list[str]]:
    """The lines to repeat before, the lines to cut between, the lines to repeat after."""
    lines = block.lines
    if block.kind == "table":
        return lines[: block.head], lines[block.head :], []
    mark = lines[0].lstrip("> \t")[:3]
    if mark not in {"```", "~~~"}:
        return [], lines, []
    closed = lines[-1].lstrip("> \t").startswith(mark)
    return lines[:1], lines[1:-1] if closed else lines[1:], lines[-1:] if closed else []


def _prose_parts(block: Block) -> Iterator[tuple[TextFragment, Frame]]:
    """Rows, code lines and list items whole; longer text in fragments."""
    are_rows = find_rows(block.lines, block.left)
    flowing = is_wrapped([line for line, is_row in zip(block.lines, are_rows, strict=True) if not is_row])
    item: list[str] = []
    for line, is_row in zip([*block.lines, ""], [*are_rows, True], strict=True):
        if item and (is_row or starts_item(line)):
            yield from ((part, _NO_FRAME) for part in _item_parts(item, flowing=flowing))
            item = []
        if is_row and line and len(line) <= (LINE_CHARACTERS if has_cells(line) else MAX_CHARACTERS):
            yield TextFragment(line, "\n", BETWEEN_LINES), _NO_FRAME
        elif line:
            item.append(line)
    if item:
        yield from ((part, _NO_FRAME) for part in _item_parts(item, flowing=flowing))


def _item_parts(lines: list[str], *, flowing: bool) -> Iterator[TextFragment]:
    """The fragments of a list item or a paragraph.

    Short text is whole. Lines that their author ended are cut between lines, wrapped lines between sentences.
    """
    text = "\n".join(lines)
    if len(text) <= PART_CHARACTERS:
        yield TextFragment(text, "\n", BETWEEN_LINES)
    elif not flowing and len(lines) > 1:
        for line in lines:
            yield from _item_parts([line], flowing=True)
    else:
        *parts, last = sentences(text)
        yield from parts
        yield TextFragment(last.text, "\n", BETWEEN_LINES)
