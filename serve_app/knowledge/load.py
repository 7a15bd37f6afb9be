"""What does a file say, whatever its format?"""

from __future__ import annotations

import codecs
import io
import re
import zipfile
import zlib
from typing import TYPE_CHECKING
from xml.parsers.expat import ExpatError

from serve_app.knowledge.blocks import Heading, markdown
from serve_app.values import Document

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TITLE_CHARACTERS = 512
"""What `Document.title` takes."""

_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_UNMARKED_ENCODINGS = ("utf-8", "gb18030", "cp1252")
_UNSEEN = dict.fromkeys([*range(9), *range(11, 32), 127, 0xAD, 0x200B, 0xFEFF, 0xFFFE]) | {0xA0: " "}
_FRONT_MATTER = re.compile(r"---\n(\w[\w-]*:(?:[^\n]*\n)*?)(?:---|\.\.\.)(?:\n|$)")
_FRONT_TITLE = re.compile(r"^title:[ \t]*(.+)$", re.MULTILINE)
_WORD_STYLES = "\n".join(
    f"p[style-name='{style}'] => h{level}:fresh"
    for level, style in enumerate(["Title", *(f"heading {n}" for n in range(1, 6))], start=1)
)
_PROGRAM_NAMES = ("Microsoft Word - ", "Microsoft PowerPoint - ", "untitled", "Untitled")
_PASSWORD_NEEDED = 4  # FPDF_ERR_PASSWORD


class Unreadable(Exception):
    """The file gives no text; the message says why, for the person who named the file."""


def load(path: Path, source: str) -> Document:
    """The document in the file, named `source`.

    Raises:
        Unreadable: the format is unknown, or the file is not what its name says, broken, encrypted or without text.
        OSError: the file cannot be opened.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise Unreadable(f"no reader for '{path.suffix}' files; known are {' '.join(READERS)}")
    title, text = reader(path)
    text = _clean(text)
    if not text.strip():
        raise Unreadable("it has no text" + (" (scanned pages?)" if path.suffix.lower() == ".pdf" else ""))
    is_text = reader is _text
    title = " ".join(_clean(title).split()) or ("" if is_text else _only_heading(text)) or path.stem
    return Document(source=source, title=title[:TITLE_CHARACTERS], text=text, format="text" if is_text else "markdown")


def _clean(text: str) -> str:
    """Without what no question contains: control and invisible characters, halves of surrogate pairs."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return lines.translate(_UNSEEN).encode("utf-8", "ignore").decode()


def _only_heading(text: str) -> str:
    """The heading that all others stand under; several on one level are no title."""
    tops: dict[Heading, None] = dict.fromkeys(section.path[0] for section in markdown(text) if section.path)
    level = min((heading.level for heading in tops), default=0)
    highest = [heading for heading in tops if heading.level == level]
    return highest[0].text if len(highest) == 1 else ""


def _text(path: Path) -> tuple[str, str]:
    return "", _decoded(path.read_bytes())


def _markdown(path: Path) -> tuple[str, str]:
    text = _decoded(path.read_bytes()).replace("\r\n", "\n")
    front = _FRONT_MATTER.match(text)
    if front is None:
        return "", text
    title = _FRONT_TITLE.search(front[1])
    return title[1].strip("\"' ") if title else "", text[front.end() :]


def _decoded(content: bytes) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    if b"\0" in content:
        raise Unreadable("it is binary, not text")
    for encoding in _UNMARKED_ENCODINGS:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise Unreadable("its encoding is none of UTF-8, UTF-16 with a mark, GB 18030 and Windows-1252")


def _html(path: Path) -> tuple[str, str]:
    from serve_app.knowledge.hypertext import to_markdown

    try:
        return to_markdown(path.read_bytes())
    except RecursionError as error:
        raise Unreadable("its elements are nested too deeply") from error


def _docx(path: Path) -> tuple[str, str]:
    import mammoth

    from serve_app.knowledge.hypertext import to_markdown

    content = io.BytesIO(path.read_bytes())
    try:
        page = mammoth.convert_to_html(content, style_map=_WORD_STYLES, convert_image=lambda _image: []).value
    except (zipfile.BadZipFile, zlib.error, ExpatError, OSError, LookupError, ValueError, RuntimeError) as error:
        raise Unreadable("it is no Word document (.docx), or broken or encrypted") from error
    return to_markdown(page)


def _pdf(path: Path) -> tuple[str, str]:
    from pypdfium2 import PdfiumError

    from serve_app.knowledge import pdf

    try:
        title, text = pdf.read(path)
    except PdfiumError as error:
        encrypted = error.err_code == _PASSWORD_NEEDED
        raise Unreadable("it is encrypted" if encrypted else "it is no PDF, or broken") from error
    for name in _PROGRAM_NAMES:
        title = title.removeprefix(name)
    return title, text


READERS: dict[str, Callable[[Path], tuple[str, str]]] = {
    ".md": _markdown,
    ".markdown": _markdown,
    ".txt": _text,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
    ".docx": _docx,
}
"""The title, empty where the format has none, and the text of a file, by its suffix."""
