"""Which passages does a document become?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING

from serve_app.knowledge.atoms import Atom, atoms
from serve_app.knowledge.blocks import Heading, markdown, plain
from serve_app.knowledge.sentences import MAX_CHARACTERS

if TYPE_CHECKING:
    from serve_app.values import Document

MIN_CHARACTERS = 200
"""A shorter passage says too little by itself: it joins a neighbour, if there is one with room."""

TARGET_CHARACTERS = 800
"""One topic of a manual, and few enough that the model can be given several."""

_SHORT = 10.0
"""What a passage below the minimum costs: more than any number of bad cuts."""

Path = tuple[Heading, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A passage before it is indexed; `title` is the path of headings that all of `text` stands under."""

    title: str
    text: str


@dataclass(slots=True)
class _Run:
    """Adjacent atoms that become one passage, and the length of its text."""

    atoms: list[Atom]
    size: int


def split(document: Document) -> list[Piece]:
    """Cut a document by its structure into passages of 200 to 1200 characters, losing nothing.

    A longer passage is one line of a table or of code, with neighbours too short to stand alone; a shorter one has
    no neighbour with room for it.
    """
    sections = markdown(document.text) if document.format == "markdown" else plain(document.text)
    runs = [run for section in sections for run in _cut(atoms(section))]
    title = " ".join(document.title.split())
    root = next((section.path[0] for section in sections if section.path and section.path[0].text == title), None)
    return [_piece(run, root or Heading(1, title)) for run in _merge(runs)]


def _cut(parts: list[Atom]) -> list[_Run]:
    """The cheapest partition into passages: near the target, cut where it hurts least."""
    best = [0.0] + [inf] * len(parts)
    origin = [(0, 0)] * (len(parts) + 1)
    for first, head in enumerate(parts):
        size = longest = 0
        for last in range(first, len(parts)):
            size += _growth(parts[last - 1] if last > first else None, parts[last])
            longest = max(longest, _growth(None, parts[last]))
            if not _fits(size, longest) and last > first:
                break
            cost = best[first] + head.cut + _misfit(size)
            if cost < best[last + 1]:
                best[last + 1], origin[last + 1] = cost, (first, size)
    runs, end = [], len(parts)
    while end:
        first, size = origin[end]
        runs.append(_Run(parts[first:end], size))
        end = first
    return runs[::-1]


def _fits(size: int, longest: int) -> bool:
    """Whether a passage may be so long: a line longer than a passage takes in what is too short without it."""
    return size <= MAX_CHARACTERS or (longest > MAX_CHARACTERS and size - longest < MIN_CHARACTERS)


def _misfit(size: int) -> float:
    off = (min(size, MAX_CHARACTERS) - TARGET_CHARACTERS) / TARGET_CHARACTERS
    return off * off + (_SHORT if size < MIN_CHARACTERS else 0.0)


def _growth(before: Atom | None, atom: Atom) -> int:
    """How many characters `atom` adds to a passage that ends with `before`."""
    if before and before.frame is atom.frame and before.section is atom.section:
        return len(atom.gap) + len(atom.text)
    bare = len(atom.frame.lead) + len(atom.text) + len(atom.frame.tail)
    if before is None:
        return bare
    if before.section is atom.section:
        return len(atom.gap) + bare
    return len(_opening(before.section.path, atom.section.path)) + bare


def _merge(runs: list[_Run]) -> list[_Run]:
    """Let runs that are too short join the neighbour that they share more headings with."""
    merged: list[_Run] = []
    for run, following in zip(runs, [*runs[1:], None], strict=False):
        if merged and _should_join(merged[-1], run, following):
            merged[-1:] = _joined(merged[-1], run)
        else:
            merged.append(run)
    if len(merged) > 1 and merged[-1].size < MIN_CHARACTERS:
        merged[-2:] = _joined(merged[-2], merged[-1])
    return merged


def _joined(before: _Run, run: _Run) -> list[_Run]:
    """One run, or two that are cut anew where one would be too long."""
    size = _joint_size(before, run)
    if size > MAX_CHARACTERS:
        return _cut(before.atoms + run.atoms)
    before.atoms.extend(run.atoms)
    before.size = size
    return [before]


def _should_join(before: _Run, run: _Run, following: _Run | None) -> bool:
    if before.size < MIN_CHARACTERS:
        return True
    if run.size >= MIN_CHARACTERS or following is None:
        return False
    backward, forward = _kinship(before, run), _kinship(run, following)
    room = MAX_CHARACTERS if backward > forward else TARGET_CHARACTERS
    return backward >= forward and _joint_size(before, run) <= room


def _joint_size(before: _Run, run: _Run) -> int:
    first = run.atoms[0]
    return before.size + run.size + _growth(before.atoms[-1], first) - _growth(None, first)


def _kinship(before: _Run, run: _Run) -> int:
    return len(_common(before.atoms[-1].section.path, run.atoms[0].section.path))


def _common(one: Path, other: Path) -> Path:
    depth = 0
    while depth < min(len(one), len(other)) and one[depth] is other[depth]:
        depth += 1
    return one[:depth]


def _opening(before: Path, path: Path) -> str:
    """The headings that a reader who comes from `before` has not seen, as they stand inside a passage."""
    return "\n\n" + "".join(f"{heading}\n\n" for heading in path[len(_common(before, path)) :])


def _piece(run: _Run, root: Heading) -> Piece:
    """Titled by what its sections have in common; what they do not stays in the text as headings."""
    path = own = run.atoms[0].section.path
    for atom in run.atoms:
        path = _common(path, atom.section.path)
    missing = _opening(path, own).lstrip()
    if run.size + len(missing) > MAX_CHARACTERS or not (path or root.text):
        path, missing = own, ""
    titled = path if not root.text or (path and path[0].text == root.text) else (root, *path)
    return Piece(" > ".join(heading.text for heading in titled), missing + _text(run.atoms))


def _text(parts: list[Atom]) -> str:
    first, last = parts[0], parts[-1]
    written = [first.frame.lead, first.text]
    for before, atom in pairwise(parts):
        if before.frame is atom.frame and before.section is atom.section:
            written += (atom.gap, atom.text)
            continue
        gap = atom.gap if before.section is atom.section else _opening(before.section.path, atom.section.path)
        written += (before.frame.tail, gap, atom.frame.lead, atom.text)
    return "".join([*written, last.frame.tail])
