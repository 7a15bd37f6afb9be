"""Reads a PDF as Markdown: paragraphs under the headings of its outline."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import pypdfium2
from pypdfium2 import raw

from serve_app.knowledge.document_structure import HEADING_CHARACTERS, Heading, is_wide, text_width
from serve_app.knowledge.formats.language_detection import is_unreadable
from serve_app.knowledge.formats.text_decoding import UnreadableDocument

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EDGE_LINES = 2
"""Lines at the top and at the foot of a page that may be running heads."""

HEADING_LINES = 3
"""Lines that a heading may take."""

NUMBER_CHARACTERS = 12
"""Characters that a heading may have before the text of its outline entry: a number, as "Chapter 12" or "3.1.4"."""

STAMP_CHARACTERS = 100
"""A page with no more text and a picture over half of it is a scan with a stamp or a page number."""

_PROGRAM_NAMES = ("Microsoft Word - ", "Microsoft PowerPoint - ", "untitled", "Untitled")
_PASSWORD_NEEDED = 4  # FPDF_ERR_PASSWORD
_PAGE_BREAK = "\f"
_NUMBER = re.compile(r"\b[ivxlc]+\b|\d+")
_NUMBER_LINE = re.compile(r"(?:chapter|appendix|part|section|第)\s*\S{1,5}(?:\s*[章节部篇])?", re.IGNORECASE)

FULL = 0.85
"""A line of this share of the usual width goes on in the next line; widths of proportional type vary as much."""

HYPHEN = "\ufffe"
"""PDFium's mark of a hyphen at the end of a line, which may belong to the word."""

_BULLET = re.compile(r"[•●▪∙]\s*|[·*-]\s+")
_INNER_BULLET = re.compile(r"[◦‣]\s*|–\s+")
_ITEM_NUMBER = re.compile(r"\d{1,3}[.)]\s")
_COMMAND = re.compile(r"[$>] |#{1,6}\s")
_CLOSING = "\"')]”’」』）"
_SENTENCE_ENDS = (".", "!", "?", ":", ";", "。", "！", "？", "：", "；")

OutlineEntry = tuple[int, Heading]
"""The index of a page, and a heading on it."""


def read(content: bytes, _encoding: str | None) -> tuple[str, str]:
    """The title in the metadata of a PDF, and its text as Markdown.

    Raises:
        UnreadableDocument: it is no PDF, broken or encrypted, or its text is not what its pages show.
    """
    try:
        title, pages, pictures, outline = _extract(content)
    except pypdfium2.PdfiumError as error:
        encrypted = error.err_code == _PASSWORD_NEEDED
        raise UnreadableDocument("it is encrypted" if encrypted else "it is no PDF, or broken") from error
    _check_readable(pages, pictures)
    parts: list[str | Heading] = []
    for at, lines in enumerate(_body_lines(pages)):
        parts += _mark_headings(lines, [heading for page, heading in outline if page == at])
    for name in _PROGRAM_NAMES:
        title = title.removeprefix(name)
    return title, _write_markdown(parts)


def _extract(content: bytes) -> tuple[str, list[str], int, list[OutlineEntry]]:
    """The title, the text of each page, the number of pictures, and the outline."""
    document = pypdfium2.PdfDocument(content)
    try:
        pages, pictures = [], 0
        for page in document:
            pages.append(page.get_textpage().get_text_range().replace(_PAGE_BREAK, "\n"))
            pictures += _is_picture(page, pages[-1])
        return document.get_metadata_dict().get("Title", "").strip(), pages, pictures, _read_outline(document)
    finally:
        document.close()


def _is_picture(page: pypdfium2.PdfPage, text: str) -> bool:
    """Whether the page is a scan, with or without a stamp."""
    characters = len("".join(text.split()))
    if not characters:
        return next(page.get_objects(max_depth=2), None) is not None
    if characters > STAMP_CHARACTERS:
        return False
    width, height = page.get_size()
    images = (image.get_bounds() for image in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=3))
    return any((right - left) * (top - bottom) * 2 > width * height for left, bottom, right, top in images)


def _check_readable(pages: list[str], pictures: int) -> None:
    if not any(page.strip() for page in pages):
        raise UnreadableDocument("it has no text (scanned pages?): recognize it first, as with OCRmyPDF")
    if pictures * 2 >= len(pages) and pictures:
        what = f"{pictures} of its {len(pages)} pages have no text (scanned pages?)"
        raise UnreadableDocument(f"{what}: recognize their text first, as with OCRmyPDF")
    if is_unreadable("\n".join(pages)):
        what = "its text is not what its pages show: its fonts do not say which characters their glyphs are"
        raise UnreadableDocument(f"{what}; recognize its text first, as with OCRmyPDF --force-ocr")


def _read_outline(document: pypdfium2.PdfDocument) -> list[OutlineEntry]:
    entries = []
    for mark in document.get_toc():
        place = mark.get_dest()
        page = place.get_index() if place else None
        if page is not None:
            entries.append((page, Heading(min(mark.level + 1, 6), mark.get_title())))
    return entries


def _body_lines(pages: list[str]) -> list[list[str]]:
    """The lines of each page without running heads, page numbers and tables of contents."""
    joined = _join_hyphenated(_PAGE_BREAK.join(pages)).split(_PAGE_BREAK)
    lines = [[" ".join(line.split()) for line in page.splitlines() if line.strip()] for page in joined]
    edges = Counter(_NUMBER.sub("0", line) for page in lines for line in {*page[:EDGE_LINES], *page[-EDGE_LINES:]})
    often = max(3, len(pages) // 20)
    heads = {edge for edge, count in edges.items() if count >= often}
    return [_drop_heads(page, heads) for page in lines]


def _drop_heads(page: list[str], heads: set[str]) -> list[str]:
    inner = range(EDGE_LINES, len(page) - EDGE_LINES)
    lines = []
    for at, line in enumerate(page):
        is_contents = "....." in line.replace(" ", "")
        is_head = at not in inner and _NUMBER.sub("0", line) in heads and not _NUMBER_LINE.fullmatch(line)
        if not is_contents and not is_head:
            lines.append(line)
    return lines


def _mark_headings(lines: list[str], headings: list[Heading]) -> list[str | Heading]:
    """The lines of a page; those in the outline become headings, with their number."""
    parts: list[str | Heading] = []
    at = 0
    for heading in headings:
        found = _find_heading(lines, at, _letters(heading.text))
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


def _find_heading(lines: list[str], first: int, wanted: str) -> tuple[int, int] | None:
    """The lines of the heading `wanted`, which may have a number before it."""
    for span in range(1, HEADING_LINES + 1):
        for start in range(first, len(lines) - span + 1):
            text = _letters("".join(lines[start : start + span]))
            number = text.removesuffix(wanted)
            is_number = len(number) <= NUMBER_CHARACTERS and any(c.isnumeric() or len(number) == 1 for c in number)
            if wanted and text.endswith(wanted) and (not number or is_number):
                return start, start + span
    return None


def _letters(text: str) -> str:
    """Letters and digits of a heading: quotes and spaces do not survive typesetting."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def _write_markdown(parts: list[str | Heading]) -> str:
    full_width = _usual_width(part for part in parts if isinstance(part, str))
    blocks: list[str] = []
    lines: list[str] = []
    for part in parts:
        if isinstance(part, str):
            lines.append(part)
        else:
            blocks += [_lines_to_markdown(lines, full_width), str(part)]
            lines = []
    return "\n\n".join(block for block in [*blocks, _lines_to_markdown(lines, full_width)] if block)


def _join_hyphenated(text: str) -> str:
    """Join words cut at line ends, with a hyphen where the text has it elsewhere."""
    known = Counter(re.findall(r"\w+(?:-\w+)*", text))

    def join(cut: re.Match[str]) -> str:
        joined, hyphened = cut[1] + cut[2], f"{cut[1]}-{cut[2]}"
        return hyphened if known[hyphened] > known[joined] else joined

    return re.sub(rf"(\w{{0,40}}){HYPHEN}(\w{{0,40}})", join, text)


def _usual_width(lines: Iterable[str]) -> float:
    """The width of a full line, in Latin characters: the third quartile of all lines."""
    widths = sorted(map(text_width, lines))
    return widths[len(widths) * 3 // 4] if widths else 0


def _lines_to_markdown(lines: Sequence[str], full_width: float) -> str:
    """Paragraphs on a line each, list items marked by '-', and commands in fences."""
    written: list[str] = []
    for before, line in pairwise(["", *lines]):
        shown, is_code = _mark_item(line), _is_command(line)
        if is_code and not _is_command(before):
            shown = f"```\n{shown}"
        if _is_command(before) and not is_code:
            written.append(f"\n```\n\n{shown}")
        else:
            written.append(_gap(before, line, full_width) + shown)
    if lines and _is_command(lines[-1]):
        written.append("\n```")
    return "".join(written).strip()


def _gap(before: str, line: str, full_width: float) -> str:
    if _is_command(line) or _is_command(before):
        return "\n" if _is_command(before) else "\n\n"
    ends = before.rstrip(_CLOSING).endswith(_SENTENCE_ENDS)  # a break there is never wrong, a missing one may be
    is_item = any(mark.match(line) for mark in (_BULLET, _INNER_BULLET, _ITEM_NUMBER))
    if not is_item and not ends and text_width(before) >= full_width * FULL:
        return "" if is_wide(before[-1:]) or is_wide(line[:1]) else " "
    return "\n\n" if ends and not is_item else "\n"


def _mark_item(line: str) -> str:
    if _is_command(line):
        return line
    for mark, shown in ((_BULLET, "- "), (_INNER_BULLET, "  - ")):
        if found := mark.match(line):
            return shown + line[found.end() :]
    return line.lstrip("`~") if line.startswith(("```", "~~~")) else line


def _is_command(line: str) -> bool:
    return _COMMAND.match(line) is not None
