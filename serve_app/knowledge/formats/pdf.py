"""Turns a PDF into Markdown: paragraphs under the headings of its outline."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

import pypdfium2
from pypdfium2 import raw

from serve_app.knowledge.document_structure import HEADING_CHARACTERS, Heading
from serve_app.knowledge.formats.language_detection import is_soup
from serve_app.knowledge.formats.paragraphs import mend_hyphens, to_markdown, usual_width
from serve_app.knowledge.formats.text_decoding import UnreadableDocument

EDGE_LINES = 2
"""How many lines at the top and at the foot of a page may be a running head."""

HEADING_LINES = 3
"""Over how many lines a heading may run."""

NUMBER_CHARACTERS = 12
"""How much longer than its outline entry a heading may be: it has a number there, as "Chapter 12" or "3.1.4"."""

STAMP_CHARACTERS = 100
"""A page whose picture covers half of it and that has no more text is a scan with a stamp or a page number."""

_PAGE_BREAK = "\f"
_NUMBER = re.compile(r"\b[ivxlc]+\b|\d+")
_NUMBER_LINE = re.compile(r"(?:chapter|appendix|part|section|第)\s*\S{1,5}(?:\s*[章节部篇])?", re.IGNORECASE)

OutlineEntry = tuple[int, Heading]
"""A page's index and a heading that stands on it."""


def read(content: bytes) -> tuple[str, str]:
    """The title that the file's author gave it, and its text as Markdown.

    Raises:
        pypdfium2.PdfiumError: it is no PDF, broken or encrypted.
        UnreadableDocument: half of its pages have no text, or its text is not what its pages show.
    """
    document = pypdfium2.PdfDocument(content)
    try:
        title = document.get_metadata_dict().get("Title", "")
        pages, pictures = [], 0
        for page in document:
            pages.append(page.get_textpage().get_text_range().replace(_PAGE_BREAK, "\n"))
            pictures += _is_picture(page, pages[-1])
        outline = _outline(document)
    finally:
        document.close()
    _assert_readable(pages, pictures)
    numbered = enumerate(_body(pages))
    parts = [part for at, lines in numbered for part in _with_headings(lines, [h for page, h in outline if page == at])]
    return title.strip(), _written(parts)


def _is_picture(page: pypdfium2.PdfPage, text: str) -> bool:
    """Whether the page shows something that its text does not say, as a scan does, stamped or not."""
    characters = len("".join(text.split()))
    if not characters:
        return next(page.get_objects(max_depth=2), None) is not None
    if characters > STAMP_CHARACTERS:
        return False
    width, height = page.get_size()
    images = (image.get_bounds() for image in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=3))
    return any((right - left) * (top - bottom) * 2 > width * height for left, bottom, right, top in images)


def _assert_readable(pages: list[str], pictures: int) -> None:
    if not any(page.strip() for page in pages):
        raise UnreadableDocument("it has no text (scanned pages?): recognize it first, as with OCRmyPDF")
    if pictures * 2 >= len(pages) and pictures:
        what = f"{pictures} of its {len(pages)} pages have no text (scanned pages?)"
        raise UnreadableDocument(f"{what}: recognize their text first, as with OCRmyPDF")
    if is_soup("\n".join(pages)):
        what = "its text is not what its pages show: its fonts do not say which characters their glyphs are"
        raise UnreadableDocument(f"{what}; recognize its text first, as with OCRmyPDF --force-ocr")


def _outline(document: pypdfium2.PdfDocument) -> list[OutlineEntry]:
    entries = []
    for mark in document.get_toc():
        place = mark.get_dest()
        page = place.get_index() if place else None
        if page is not None:
            entries.append((page, Heading(min(mark.level + 1, 6), mark.get_title())))
    return entries


def _body(pages: list[str]) -> list[list[str]]:
    """The lines of each page without running heads, page numbers and tables of contents."""
    mended = mend_hyphens(_PAGE_BREAK.join(pages)).split(_PAGE_BREAK)
    lines = [[" ".join(line.split()) for line in page.splitlines() if line.strip()] for page in mended]
    edges = Counter(_NUMBER.sub("0", line) for page in lines for line in {*page[:EDGE_LINES], *page[-EDGE_LINES:]})
    often = max(3, len(pages) // 20)
    heads = {edge for edge, count in edges.items() if count >= often}
    return [_without(page, heads) for page in lines]


def _without(page: list[str], heads: set[str]) -> list[str]:
    inner = range(EDGE_LINES, len(page) - EDGE_LINES)
    kept = []
    for at, line in enumerate(page):
        is_contents = "....." in line.replace(" ", "")
        is_head = at not in inner and _NUMBER.sub("0", line) in heads and not _NUMBER_LINE.fullmatch(line)
        if not is_contents and not is_head:
            kept.append(line)
    return kept


def _with_headings(lines: list[str], headings: list[Heading]) -> list[str | Heading]:
    """The lines of a page, those that are headings of the outline marked as such, with the number they have there."""
    parts: list[str | Heading] = []
    at = 0
    for heading in headings:
        found = _find(lines, at, _letters(heading.text))
        if found is None:
            continue
        start, end = found
        parts += lines[at:start]
        text = " ".join(lines[start:end])[:HEADING_CHARACTERS]
        if start > at and _NUMBER_LINE.fullmatch(lines[start - 1]):
            text = f"{parts.pop()} {text}"
        parts.append(Heading(heading.level, text))
        at = end
    return [*parts, *lines[at:]]


def _find(lines: list[str], first: int, wanted: str) -> tuple[int, int] | None:
    """Where the lines from `first` on say no more than `wanted` and a number before it."""
    for span in range(1, HEADING_LINES + 1):
        for start in range(first, len(lines) - span + 1):
            text = _letters("".join(lines[start : start + span]))
            number = text.removesuffix(wanted)
            is_number = len(number) <= NUMBER_CHARACTERS and any(c.isnumeric() or len(number) == 1 for c in number)
            if wanted and text.endswith(wanted) and (not number or is_number):
                return start, start + span
    return None


def _letters(text: str) -> str:
    """What two spellings of a heading share: neither quotes nor spaces survive typesetting."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def _written(parts: list[str | Heading]) -> str:
    full_width = usual_width(part for part in parts if isinstance(part, str))
    blocks: list[str] = []
    lines: list[str] = []
    for part in parts:
        if isinstance(part, str):
            lines.append(part)
        else:
            blocks += [to_markdown(lines, full_width), str(part)]
            lines = []
    return "\n\n".join(block for block in [*blocks, to_markdown(lines, full_width)] if block)
