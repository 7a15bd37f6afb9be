"""Turns a PowerPoint presentation into Markdown: a heading for each slide, its texts, tables and notes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from serve_app.knowledge.formats import tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_DEPTH = 20
"""Of groups of shapes within groups."""


def read(content: bytes, _encoding: str | None) -> tuple[str, str]:
    """The presentation's title, and its slides in order; a slide without any text is left out."""
    from pptx import Presentation

    deck = Presentation(io.BytesIO(content))
    parts = []
    for number, slide in enumerate(deck.slides, 1):
        title = slide.shapes.title
        heading = " ".join(title.text_frame.text.split()) if title is not None else ""
        others = [shape for shape in _flat(slide.shapes) if title is None or shape.shape_id != title.shape_id]
        body = [text for shape in others if (text := _text_of(shape).strip())]
        if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame) and notes.text.strip():
            body.append(f"Notes: {' '.join(notes.text.split())}")
        if heading or body:
            parts.append("\n\n".join([f"## {heading or f'Slide {number}'}", *body]))
    return deck.core_properties.title or "", "\n\n".join(parts)


def _flat(shapes: Iterable[Any], depth: int = 0) -> Iterator[Any]:
    for shape in shapes:
        if hasattr(shape, "shapes") and depth < MAX_DEPTH:
            yield from _flat(shape.shapes, depth + 1)
        else:
            yield shape


def _text_of(shape: Any) -> str:
    if getattr(shape, "has_table", False):
        return tables.to_markdown(_rows(shape.table))
    if not getattr(shape, "has_text_frame", False):
        return ""
    lines = [(paragraph.level, " ".join(paragraph.text.split())) for paragraph in shape.text_frame.paragraphs]
    lines = [(level, line) for level, line in lines if line]
    if len(lines) == 1:
        return lines[0][1]
    return "\n".join(f"{'  ' * level}- {line}" for level, line in lines)


def _rows(table: Any) -> list[list[str]]:
    rows = [[cell.text for cell in row.cells] for row in table.rows]
    for down, row in enumerate(table.rows):
        for across, cell in enumerate(row.cells):
            if cell.is_merge_origin:
                for line in rows[down : down + cell.span_height]:
                    line[across : across + cell.span_width] = [cell.text] * cell.span_width
    return rows
