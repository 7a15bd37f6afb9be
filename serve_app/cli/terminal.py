"""Text for a terminal: tables, and text without control characters."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])
"""Characters that a terminal executes instead of showing, for `str.translate`. Tab and line feed are not among them."""


def strip_controls(text: str) -> str:
    """Return `text` without control characters, except tab and line feed."""
    return text.translate(CONTROLS)


def format_table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]], text_columns: int = 1) -> Iterator[str]:
    """Yield the lines of a table; no rows give no lines.

    The first `text_columns` columns are aligned to the left, the others, which are numbers, to the right.
    """
    body = list(rows)
    if not body:
        return
    widths = [max(map(len, column)) for column in zip(titles, *body, strict=True)]
    for row in (titles, *body):
        cells = [
            cell.ljust(width) if place < text_columns else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def count_of(count: int, noun: str) -> str:
    """Return the number and the noun, such as `1 document` or `1,200 documents`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
