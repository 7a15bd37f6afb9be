"""Finds the files that paths name, and the source by which each is known."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Found:
    """The files by source, and how many of the folders' files are of another kind."""

    files: dict[str, Path]
    skipped: int


def find(paths: Sequence[str], suffixes: Container[str] | None) -> Found:
    """Files as they are named; of folders all files below with one of `suffixes`, or all, but nothing hidden."""
    files: dict[str, Path] = {}
    skipped = 0
    for path in map(Path, paths):
        if not path.is_dir():
            files[source_of(path)] = path
            continue
        for below in _walk(path):
            if (suffixes is None or below.suffix.lower() in suffixes) and below.is_file():
                files[source_of(below)] = below
            else:
                skipped += 1
    return Found(files, skipped)


def source_of(path: Path | str) -> str:
    """The path as it was given, in one spelling, so that giving it again names the same document."""
    normal = Path(os.path.normpath(path)).as_posix()
    return os.fsencode(normal).decode("utf-8", "replace")


def is_below(source: str, base: str) -> bool:
    """Whether `source` is the file or in the folder `base`; both as `source_of` spells them."""
    if base == ".":
        return not source.startswith(("/", "../")) and "://" not in source
    return source == base or source.startswith(f"{base.rstrip('/')}/")


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))
