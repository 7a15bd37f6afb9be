"""Writes tables as Markdown, so that each value stands under its heading.

A cell that spans rows or columns is repeated in each of them; a `|` in a cell is escaped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bs4.element import NavigableString, Tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_COLUMNS = 1000
"""The most columns that a cell may span in HTML."""

MAX_CELLS = 100_000
"""Cells of a table after its spans are filled: a page of a few bytes may ask for billions."""

Row = list[str]


def to_markdown(rows: Sequence[Row]) -> str:
    """A table whose first row is its head; empty rows and columns are left out."""
    width = max(map(len, rows), default=0)
    cells = [[" ".join(cell.split()) for cell in row] + [""] * (width - len(row)) for row in rows]
    cells = [row for row in cells if any(row)]
    used = [column for column in range(width) if any(row[column] for row in cells)]
    lines = ["| " + " | ".join(escaped(row[column]) for column in used) + " |" for row in cells]
    return "\n".join([*lines[:1], "| " + " | ".join(["---"] * len(used)) + " |", *lines[1:]]) if lines else ""


def sheet_to_markdown(rows: Sequence[Row], level: int) -> str:
    """The tables and titles of a sheet as Markdown.

    A line with one value is a title where more columns follow; after an empty line it opens another table.
    """
    parts: list[str] = []
    table: list[Row] = []
    after_gap = True
    for row in [*rows, None]:
        filled = [cell for cell in row or () if cell.strip()]
        opens = after_gap and _columns(row) != _columns(table[0] if table else None)
        if row is None or (filled and (opens or (after_gap and len(filled) == 1))):
            parts += _table(table, level)
            table = []
        if row is not None and filled:
            table.append(row)
        after_gap = not filled
    return "\n\n".join(parts)


def escaped(text: str) -> str:
    """The text of a cell, its bars marked as no borders."""
    return text.replace("\\|", "|").replace("|", "\\|")


def fill_spans(table: Tag) -> None:
    """Repeat each spanning cell of an HTML table in all places that it covers.

    Several head rows become one. Captions and titles over the whole width become paragraphs before the table.
    """
    rows = [row for row in table.find_all("tr") if row.find_parent("table") is table]
    _move_out(table)
    grid = _grid(rows)
    heads = _head_rows(rows, grid)
    width = max((len(row) for row in grid), default=0)
    while _opens_with_title(grid, width):
        title = grid.pop(0)[0]
        _put_before(table, title.get_text(" ") if title is not None else "")
        heads -= 1
    table.clear()
    if not any(cell is not None and cell.get_text(strip=True) for row in grid for cell in row):
        table.decompose()
        return
    heads = max(1, heads)
    head = [_joined([row[at] if at < len(row) else None for row in grid[:heads]]) for at in range(width)]
    for cells in [head, *(_copies(row, width) for row in grid[heads:])]:
        made = Tag(name="tr")
        made.extend(cells)
        table.append(made)


def _opens_with_title(grid: list[list[Tag | None]], width: int) -> bool:
    """Whether the first row is one cell over the whole width."""
    if not grid or width < 2 or len({id(cell) for cell in grid[0]}) > 1:  # noqa: PLR2004 - columns
        return False
    return all(cell is not grid[0][0] for row in grid[1:2] for cell in row)


def _move_out(table: Tag) -> None:
    """Put the caption, and text that is in no cell, before the table."""
    for text in table.find_all(string=True):
        cell = text.find_parent(["td", "th", "table", "caption"])
        if cell is table:
            _put_before(table, str(text))
        elif cell is not None and cell.name == "caption" and cell.find_parent("table") is table:
            _put_before(table, cell.get_text(" "))
            cell.clear()


def _put_before(table: Tag, text: str) -> None:
    if text.strip():
        made = Tag(name="p")
        made.append(NavigableString(" ".join(text.split())))
        table.insert_before(made)


def _table(rows: list[Row], level: int) -> Iterable[str]:
    while rows and sum(bool(cell.strip()) for cell in rows[0]) == 1 and len(rows) > 1:
        title = " ".join(next(cell for cell in rows[0] if cell.strip()).split())
        if max(sum(bool(cell.strip()) for cell in row) for row in rows) == 1:
            break
        yield f"{'#' * level} {title}"
        rows = rows[1:]
    if rows and max(sum(bool(cell.strip()) for cell in row) for row in rows) == 1:
        yield "\n\n".join(" ".join("".join(row).split()) for row in rows)
    elif rows:
        yield to_markdown(rows)


def _columns(row: Row | None) -> list[int]:
    return [at for at, cell in enumerate(row or ()) if cell.strip()]


def _grid(rows: list[Tag]) -> list[list[Tag | None]]:
    """The cell that covers each place of the table."""
    grid: list[list[Tag | None]] = [[] for _ in rows]
    left = MAX_CELLS
    for down, row in enumerate(rows):
        across = 0
        for cell in row.find_all(["td", "th"], recursive=False):
            while across < len(grid[down]) and grid[down][across] is not None:
                across += 1
            wide = min(_span(cell, "colspan"), MAX_COLUMNS, max(1, left))
            high = min(_span(cell, "rowspan") or len(rows), len(rows) - down, max(1, left // wide))
            for line in grid[down : down + high]:
                line.extend([None] * (across + wide - len(line)))
                line[across : across + wide] = [cell] * wide
            left -= wide * high
            across += wide
    return _narrowed(grid)


def _narrowed(grid: list[list[Tag | None]]) -> list[list[Tag | None]]:
    """The grid without columns that repeat the one before: a span may claim too many."""
    width = max((len(row) for row in grid), default=0)
    full = [[*row, *([None] * (width - len(row)))] for row in grid]
    columns = [at for at in range(width) if at == 0 or any(row[at] is not row[at - 1] for row in full)]
    return [[row[at] for at in columns] for row in full]


def _span(cell: Tag, name: str) -> int:
    value = str(cell.get(name, "1")).strip()
    number = int(value) if value.isascii() and value.isdigit() and len(value) < 6 else 1  # noqa: PLR2004 - digits
    return number if name == "rowspan" else max(1, number)


def _head_rows(rows: list[Tag], grid: list[list[Tag | None]]) -> int:
    """The number of head rows: rows in `thead`, or of heading cells only."""
    count = 0
    for row, cells in zip(rows, grid, strict=True):
        parent = row.parent.name if row.parent else ""
        if parent != "thead" and not all(cell is None or cell.name == "th" for cell in cells):
            break
        count += 1
    return count


def _copies(row: list[Tag | None], width: int) -> list[Tag]:
    if width > 1 and len(row) == width and len({id(cell) for cell in row}) == 1:  # a title between the rows
        return [_copy(row[0]), *(_copy(None) for _ in row[1:])]
    return [_copy(row[at] if at < len(row) else None) for at in range(width)]


def _copy(cell: Tag | None) -> Tag:
    made = Tag(name="td")
    if cell is not None:
        for child in cell.contents:
            made.append(child.__copy__())
    return made


def _joined(cells: list[Tag | None]) -> Tag:
    """The heads of one column, from top to bottom, each once."""
    texts = dict.fromkeys(" ".join(cell.get_text(" ").split()) for cell in cells if cell is not None)
    made = Tag(name="th")
    made.append(NavigableString(" ".join(text for text in texts if text)))
    return made
