"""Turns CSV files and Excel workbooks into Markdown tables."""

from __future__ import annotations

import csv
import io
from collections import Counter
from datetime import datetime, time
from typing import TYPE_CHECKING, Any

from serve_app.knowledge.formats import tables
from serve_app.knowledge.formats.text_decoding import UnreadableDocument, decode_text

if TYPE_CHECKING:
    from openpyxl.workbook import Workbook
    from openpyxl.worksheet.worksheet import Worksheet

DELIMITERS = ",;\t|"
PROBED_LINES = 100
"""As many tell which character separates the values."""

MAX_CELLS = 5_000_000
"""Of a sheet; an Excel file may claim a million rows by sixteen thousand columns in a few bytes."""


def read_csv(content: bytes, encoding: str | None) -> tuple[str, str]:
    """No title, and the table of comma, semicolon, tab or bar separated values."""
    text = decode_text(content, encoding)
    first, _, rest = text.partition("\n")
    named = first.strip().lower()
    if named.startswith("sep=") and len(named) == len("sep=;"):  # Excel's own note
        delimiter, text = named[-1], rest
    else:
        delimiter = _delimiter(text)
    try:
        rows = list(csv.reader(io.StringIO(text.replace("\0", ""), newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise UnreadableDocument(f"it is no table of separated values ({error})") from error
    return "", tables.to_markdown(rows)


def read_xlsx(content: bytes, _encoding: str | None) -> tuple[str, str]:
    """The workbook's title, and its visible sheets, each under its name."""
    from openpyxl import load_workbook

    shown: Workbook = load_workbook(io.BytesIO(content), data_only=True)
    written: Workbook = load_workbook(io.BytesIO(content))
    visible = [sheet for sheet in shown.worksheets if sheet.sheet_state == "visible"]
    texts = {sheet.title: tables.blocks(_rows(sheet, written[sheet.title]), level=3) for sheet in visible}
    return shown.properties.title or "", "\n\n".join(f"## {name}\n\n{text}" for name, text in texts.items() if text)


def _delimiter(text: str) -> str:
    """The character by which most lines have the same number of values, at least two."""
    lines = text.splitlines()[:PROBED_LINES]

    def agreement(delimiter: str) -> tuple[int, int]:
        widths = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter) if row)
        (width, count) = widths.most_common(1)[0] if widths else (1, 0)
        return (count, width) if width > 1 else (0, 1)

    return max(DELIMITERS, key=agreement)


def _rows(sheet: Worksheet, written: Worksheet) -> list[list[str]]:
    if sheet.max_row * sheet.max_column > MAX_CELLS:
        raise UnreadableDocument(
            f"sheet {sheet.title!r} is larger than {MAX_CELLS:,} cells: export what matters of it as CSV"
        )
    rows = [[_shown(cell, written) for cell in row] for row in sheet.iter_rows()]
    for area in sheet.merged_cells.ranges:
        top, left = area.min_row - 1, area.min_col - 1
        is_title = area.min_row == area.max_row and not any(rows[top][area.max_col :] + rows[top][:left])
        if not is_title:
            for row in rows[top : area.max_row]:
                row[left : area.max_col] = [rows[top][left]] * (area.max_col - left)
    return rows


def _shown(cell: Any, written: Worksheet) -> str:
    """The value about as Excel shows it; of a formula that was never computed, the formula."""
    value = cell.value
    if value is None:
        formula = written.cell(cell.row, cell.column).value
        return formula if isinstance(formula, str) and formula.startswith("=") else ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float | int):
        percent = "%" in (cell.number_format or "")
        return f"{value * 100:.10g}%" if percent else f"{value:.15g}"
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    return str(value)
