"""How do rows become lines whose columns stand below one another?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]], names: int = 1) -> Iterator[str]:
    """The titles and the rows; the first `names` columns to the left, figures to the right. Nothing without rows."""
    body = list(rows)
    if not body:
        return
    widths = [max(map(len, column)) for column in zip(titles, *body, strict=True)]
    for row in (titles, *body):
        cells = [
            cell.ljust(width) if place < names else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
