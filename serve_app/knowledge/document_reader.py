"""Reads a file of any known format as a document."""

from __future__ import annotations

import io
import logging
import re
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from serve_app.knowledge.document_structure import Heading, parse_markdown
from serve_app.knowledge.formats.text_decoding import UnreadableDocument, decode_page, decode_text
from serve_app.values import Document

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["READERS", "UnreadableDocument", "clean_text", "make_document", "read_document"]

logger = logging.getLogger(__name__)

UNPACKED_BYTES = 512 * 1024 * 1024
"""Of an archive: a thousand times the text of a long book, and little enough for a laptop."""

TITLE_CHARACTERS = 512
"""What `Document.title` takes."""

_UNSEEN = dict.fromkeys([*range(9), *range(11, 32), 127, 0xAD, 0x200B, 0xFEFF, 0xFFFE]) | {0xA0: " "}
_FRONT_MATTER = re.compile(r"---\n(\w[\w-]*:(?:[^\n]*\n)*?)(?:---|\.\.\.)(?:\n|$)")
_FRONT_TITLE = re.compile(r"^title:[ \t]*(.+)$", re.MULTILINE)
_WORD_STYLES = "\n".join(
    f"p[style-name='{style}'] => h{level}:fresh"
    for level, style in enumerate(["Title", *(f"heading {n}" for n in range(1, 6))], start=1)
)
_PROGRAM_NAMES = ("Microsoft Word - ", "Microsoft PowerPoint - ", "untitled", "Untitled")
_PASSWORD_NEEDED = 4  # FPDF_ERR_PASSWORD


def read_document(path: Path, source: str, encoding: str | None = None) -> Document:
    """The document in the file, named `source`; `encoding` is that of text files and pages, where it is known.

    Raises:
        UnreadableDocument: the format is unknown, or the file is broken, encrypted or without text.
        OSError: the file cannot be opened.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise UnreadableDocument(f"no reader for '{path.suffix}' files; known are {' '.join(READERS)}")
    title, text = _read(suffix, path.read_bytes(), encoding)
    is_text = READERS[suffix] is _text
    title = title or ("" if is_text else _only_heading(text))
    return make_document(source, title or path.stem, text, is_text=is_text)


def make_document(source: str, title: str, text: str, *, is_text: bool) -> Document:
    """The document of a text that was read, made valid.

    Raises:
        UnreadableDocument: there is no text.
    """
    text = clean_text(text)
    if not text.strip():
        raise UnreadableDocument("it has no text")
    shown = " ".join(clean_text(title).split())[:TITLE_CHARACTERS]
    return Document(source=source, title=shown, text=text, format="text" if is_text else "markdown")


def clean_text(text: str) -> str:
    """Without what no question contains: control and invisible characters; halves of surrogate pairs replaced."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return lines.translate(_UNSEEN).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _read(suffix: str, content: bytes, encoding: str | None) -> tuple[str, str]:
    if suffix not in _ARCHIVES:
        title, text = READERS[suffix](content, encoding)
        return " ".join(clean_text(title).split()), clean_text(text)
    try:
        _assert_small(content)
        title, text = READERS[suffix](content, encoding)
    except UnreadableDocument:
        raise
    except Exception as error:  # each library raises whatever its parsers do
        logger.debug("document_not_read", exc_info=error)
        raise UnreadableDocument(f"it is no {_ARCHIVES[suffix]}, or broken or encrypted") from error
    return " ".join(clean_text(title).split()), clean_text(text)


def _assert_small(archive: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        size = sum(each.file_size for each in opened.infolist())
    if size > UNPACKED_BYTES:
        raise UnreadableDocument(f"it unpacks to more than {UNPACKED_BYTES >> 20} MB")


def _only_heading(text: str) -> str:
    """The heading that all others stand under; several on one level are no title."""
    tops: dict[Heading, None] = dict.fromkeys(section.path[0] for section in parse_markdown(text) if section.path)
    level = min((heading.level for heading in tops), default=0)
    highest = [heading for heading in tops if heading.level == level]
    return highest[0].text if len(highest) == 1 else ""


def _text(content: bytes, encoding: str | None) -> tuple[str, str]:
    return "", decode_text(content, encoding)


def _markdown(content: bytes, encoding: str | None) -> tuple[str, str]:
    text = decode_text(content, encoding).replace("\r\n", "\n")
    front = _FRONT_MATTER.match(text)
    if front is None:
        return "", text
    title = _FRONT_TITLE.search(front[1])
    return title[1].strip("\"' ") if title else "", text[front.end() :]


def _html(content: bytes, encoding: str | None) -> tuple[str, str]:
    from serve_app.knowledge.formats.html import to_markdown

    return to_markdown(decode_page(content, encoding))


def _docx(content: bytes, _encoding: str | None) -> tuple[str, str]:
    import mammoth

    from serve_app.knowledge.formats.html import to_markdown

    page = mammoth.convert_to_html(io.BytesIO(content), style_map=_WORD_STYLES, convert_image=lambda _image: []).value
    return to_markdown(page)


def _xlsx(content: bytes, encoding: str | None) -> tuple[str, str]:
    from serve_app.knowledge.formats.spreadsheets import read_xlsx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # openpyxl's, of drawings and styles that it does not keep
        return read_xlsx(content, encoding)


def _pptx(content: bytes, encoding: str | None) -> tuple[str, str]:
    from serve_app.knowledge.formats.slides import read

    return read(content, encoding)


def _csv(content: bytes, encoding: str | None) -> tuple[str, str]:
    from serve_app.knowledge.formats.spreadsheets import read_csv

    return read_csv(content, encoding)


def _eml(content: bytes, _encoding: str | None) -> tuple[str, str]:
    from serve_app.knowledge.formats import mail

    return mail.read(content, _attachment)


def _attachment(name: str, content: bytes) -> str:
    suffix = Path(name).suffix.lower()
    if suffix == ".eml" or suffix not in READERS:
        raise UnreadableDocument(f"no reader for '{suffix}' files")
    return _read(suffix, content, None)[1]


def _pdf(content: bytes, _encoding: str | None) -> tuple[str, str]:
    from pypdfium2 import PdfiumError

    from serve_app.knowledge.formats import pdf

    try:
        title, text = pdf.read(content)
    except PdfiumError as error:
        encrypted = error.err_code == _PASSWORD_NEEDED
        raise UnreadableDocument("it is encrypted" if encrypted else "it is no PDF, or broken") from error
    for name in _PROGRAM_NAMES:
        title = title.removeprefix(name)
    return title, text


_ARCHIVES = {
    ".docx": "Word document (.docx)",
    ".xlsx": "Excel workbook (.xlsx)",
    ".xlsm": "Excel workbook (.xlsm)",
    ".pptx": "PowerPoint presentation (.pptx)",
}
"""Formats that are ZIP archives of XML, and what they are called."""

READERS: dict[str, Callable[[bytes, str | None], tuple[str, str]]] = {
    ".md": _markdown,
    ".markdown": _markdown,
    ".txt": _text,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
    ".docx": _docx,
    ".csv": _csv,
    ".tsv": _csv,
    ".xlsx": _xlsx,
    ".xlsm": _xlsx,
    ".pptx": _pptx,
    ".eml": _eml,
}
"""The title, empty where the format has none, and the text of a file, by its suffix, bytes and named encoding."""
