"""Reads Word documents, Excel workbooks, CSV files and PowerPoint presentations as Markdown.

Each reader returns a title, empty where the format has none, and the text.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections import Counter
from datetime import datetime, time
from typing import TYPE_CHECKING, Any

from serve_app.knowledge.formats import tables
from serve_app.knowledge.formats.text_decoding import UnreadableDocument, decode_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from openpyxl.workbook import Workbook
    from openpyxl.worksheet.worksheet import Worksheet

DELIMITERS = ",;\t|"
PROBED_LINES = 100
"""Lines that are looked at to find the character that separates values."""

MAX_CELLS = 5_000_000
"""Cells of a sheet: an Excel file may claim a million rows by sixteen thousand columns in a few bytes."""

MAX_SHAPE_DEPTH = 20
"""Groups of shapes inside groups."""

_WORD_STYLES = "\n".join(
    f"p[style-name='{style}'] => h{level}:fresh"
    for level, style in enumerate(["Title", *(f"heading {n}" for n in range(1, 6))], start=1)
)


def read_docx(content: bytes, _encoding: str | None) -> tuple[str, str]:
    """No title, and the text of a Word document; its title is a heading."""
    import mammoth

    from serve_app.knowledge.formats.html import to_markdown

    page = mammoth.convert_to_html(io.BytesIO(content), style_map=_WORD_STYLES, convert_image=lambda _image: []).value
    return to_markdown(page)


def read_csv(content: bytes, encoding: str | None) -> tuple[str, str]:
    """No title, and the table of values separated by commas, semicolons, tabs or bars."""
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

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # openpyxl's, about drawings and styles that it does not keep
        values: Workbook = load_workbook(io.BytesIO(content), data_only=True)
        formulas: Workbook = load_workbook(io.BytesIO(content))
    visible = [sheet for sheet in values.worksheets if sheet.sheet_state == "visible"]
    texts = {
        sheet.title: tables.sheet_to_markdown(_sheet_rows(sheet, formulas[sheet.title]), level=3) for sheet in visible
    }
    return values.properties.title or "", "\n\n".join(f"## {name}\n\n{text}" for name, text in texts.items() if text)


def _delimiter(text: str) -> str:
    """The character by which most lines have the same number of values, at least two."""
    lines = text.splitlines()[:PROBED_LINES]

    def agreement(delimiter: str) -> tuple[int, int]:
        widths = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter) if row)
        (width, count) = widths.most_common(1)[0] if widths else (1, 0)
        return (count, width) if width > 1 else (0, 1)

    return max(DELIMITERS, key=agreement)


def _sheet_rows(sheet: Worksheet, formulas: Worksheet) -> list[list[str]]:
    if sheet.max_row * sheet.max_column > MAX_CELLS:
        raise UnreadableDocument(
            f"sheet {sheet.title!r} is larger than {MAX_CELLS:,} cells: export what matters of it as CSV"
        )
    rows = [[_cell_text(cell, formulas) for cell in row] for row in sheet.iter_rows()]
    for area in sheet.merged_cells.ranges:
        top, left = area.min_row - 1, area.min_col - 1
        is_title = area.min_row == area.max_row and not any(rows[top][area.max_col :] + rows[top][:left])
        if not is_title:
            for row in rows[top : area.max_row]:
                row[left : area.max_col] = [rows[top][left]] * (area.max_col - left)
    return rows


def _cell_text(cell: Any, formulas: Worksheet) -> str:
    """The value about as Excel shows it; a formula where its value was never computed."""
    value = cell.value
    if value is None:
        formula = formulas.cell(cell.row, cell.column).value
        return formula if isinstance(formula, str) and formula.startswith("=") else ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float | int):
        percent = "%" in (cell.number_format or "")
        return f"{value * 100:.10g}%" if percent else f"{value:.15g}"
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    return str(value)


def read_pptx(content: bytes, _encoding: str | None) -> tuple[str, str]:
    """The presentation's title, and its slides; a slide without text is left out."""
    from pptx import Presentation

    deck = Presentation(io.BytesIO(content))
    parts = []
    for number, slide in enumerate(deck.slides, 1):
        title = slide.shapes.title
        heading = " ".join(title.text_frame.text.split()) if title is not None else ""
        others = [shape for shape in _flatten_groups(slide.shapes) if title is None or shape.shape_id != title.shape_id]
        body = [text for shape in others if (text := _shape_text(shape).strip())]
        if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame) and notes.text.strip():
            body.append(f"Notes: {' '.join(notes.text.split())}")
        if heading or body:
            parts.append("\n\n".join([f"## {heading or f'Slide {number}'}", *body]))
    return deck.core_properties.title or "", "\n\n".join(parts)


def _flatten_groups(shapes: Iterable[Any], depth: int = 0) -> Iterator[Any]:
    for shape in shapes:
        if hasattr(shape, "shapes") and depth < MAX_SHAPE_DEPTH:
            yield from _flatten_groups(shape.shapes, depth + 1)
        else:
            yield shape


def _shape_text(shape: Any) -> str:
    if getattr(shape, "has_table", False):
        return tables.to_markdown(_slide_table(shape.table))
    if not getattr(shape, "has_text_frame", False):
        return ""
    lines = [(paragraph.level, " ".join(paragraph.text.split())) for paragraph in shape.text_frame.paragraphs]
    lines = [(level, line) for level, line in lines if line]
    if len(lines) == 1:
        return lines[0][1]
    return "\n".join(f"{'  ' * level}- {line}" for level, line in lines)


def _slide_table(table: Any) -> list[list[str]]:
    rows = [[cell.text for cell in row.cells] for row in table.rows]
    for down, row in enumerate(table.rows):
        for across, cell in enumerate(row.cells):
            if cell.is_merge_origin:
                for line in rows[down : down + cell.span_height]:
                    line[across : across + cell.span_width] = [cell.text] * cell.span_width
    return rows
