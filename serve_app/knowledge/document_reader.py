"""Reads documents: files of any known format, and whatever a LangChain document loader reads."""

from __future__ import annotations

import io
import logging
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serve_app.config.class_path import load_class, silence_community_notice
from serve_app.knowledge.document_structure import parse_markdown
from serve_app.knowledge.formats import html, mail, office, pdf
from serve_app.knowledge.formats.text_decoding import UnreadableDocument, decode_page, decode_text
from serve_app.values import Document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from serve_app.knowledge.document_structure import Heading

logger = logging.getLogger(__name__)

UNPACKED_BYTES = 512 * 1024 * 1024
"""Limit of an unpacked archive: a thousand times the text of a long book, and little enough for a laptop."""

TITLE_CHARACTERS = 512
"""The limit of `Document.title`."""

MAX_SOURCE = 1024
"""The limit of `Document.source`, in characters."""

_INVISIBLE = dict.fromkeys([*range(9), *range(11, 32), 127, 0xAD, 0x200B, 0xFEFF, 0xFFFE]) | {0xA0: " "}
_FRONT_MATTER = re.compile(r"---\n(\w[\w-]*:(?:[^\n]*\n)*?)(?:---|\.\.\.)(?:\n|$)")
_FRONT_TITLE = re.compile(r"^title:[ \t]*(.+)$", re.MULTILINE)


def read_document(path: Path, source: str, encoding: str | None = None) -> Document:
    """The document in the file, named `source`.

    `encoding` is the encoding of text files and pages, where it is known.

    Raises:
        UnreadableDocument: the format is unknown, or the file is broken, encrypted or without text.
        OSError: the file cannot be opened.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise UnreadableDocument(f"no reader for '{path.suffix}' files; known are {' '.join(READERS)}")
    title, text = _read(suffix, path.read_bytes(), encoding)
    is_text = READERS[suffix] is _read_text
    title = title or ("" if is_text else _find_only_heading(text))
    return make_document(source, title or path.stem, text, is_text=is_text)


def make_document(source: str, title: str, text: str, *, is_text: bool) -> Document:
    """The document of a text that was read, with valid characters and a bounded title.

    Raises:
        UnreadableDocument: there is no text.
    """
    text = clean_text(text)
    if not text.strip():
        raise UnreadableDocument("it has no text")
    title = " ".join(clean_text(title).split())[:TITLE_CHARACTERS]
    return Document(source=source, title=title, text=text, format="text" if is_text else "markdown")


def clean_text(text: str) -> str:
    """The text without control and invisible characters; lone surrogates become U+FFFD."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return lines.translate(_INVISIBLE).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _read(suffix: str, content: bytes, encoding: str | None) -> tuple[str, str]:
    reader = READERS[suffix]
    try:
        if suffix in _ARCHIVES:
            _check_unpacked_size(content)
        title, text = reader(content, encoding)
    except UnreadableDocument:
        raise
    except Exception as error:
        if suffix not in _ARCHIVES:
            raise
        logger.debug("document_not_read", exc_info=error)  # each library raises whatever its parsers do
        raise UnreadableDocument(f"it is no {_ARCHIVES[suffix]}, or broken or encrypted") from error
    return " ".join(clean_text(title).split()), clean_text(text)


def _check_unpacked_size(archive: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        size = sum(each.file_size for each in opened.infolist())
    if size > UNPACKED_BYTES:
        raise UnreadableDocument(f"it unpacks to more than {UNPACKED_BYTES >> 20} MB")


def _find_only_heading(text: str) -> str:
    """The heading that all others stand under; several headings on one level are no title."""
    tops: dict[Heading, None] = dict.fromkeys(section.path[0] for section in parse_markdown(text) if section.path)
    level = min((heading.level for heading in tops), default=0)
    highest = [heading for heading in tops if heading.level == level]
    return highest[0].text if len(highest) == 1 else ""


def _read_text(content: bytes, encoding: str | None) -> tuple[str, str]:
    return "", decode_text(content, encoding)


def _read_markdown(content: bytes, encoding: str | None) -> tuple[str, str]:
    text = decode_text(content, encoding).replace("\r\n", "\n")
    front = _FRONT_MATTER.match(text)
    if front is None:
        return "", text
    title = _FRONT_TITLE.search(front[1])
    return title[1].strip("\"' ") if title else "", text[front.end() :]


def _read_html(content: bytes, encoding: str | None) -> tuple[str, str]:
    return html.to_markdown(decode_page(content, encoding))


def _read_mail(content: bytes, _encoding: str | None) -> tuple[str, str]:
    return mail.read(content, _read_attachment)


def _read_attachment(name: str, content: bytes) -> str:
    suffix = Path(name).suffix.lower()
    if suffix == ".eml" or suffix not in READERS:
        raise UnreadableDocument(f"no reader for '{suffix}' files")
    return _read(suffix, content, None)[1]


_ARCHIVES = {
    ".docx": "Word document (.docx)",
    ".xlsx": "Excel workbook (.xlsx)",
    ".xlsm": "Excel workbook (.xlsm)",
    ".pptx": "PowerPoint presentation (.pptx)",
}
"""Names of the formats that are ZIP archives of XML."""

READERS: dict[str, Callable[[bytes, str | None], tuple[str, str]]] = {
    ".md": _read_markdown,
    ".markdown": _read_markdown,
    ".txt": _read_text,
    ".html": _read_html,
    ".htm": _read_html,
    ".pdf": pdf.read,
    ".docx": office.read_docx,
    ".csv": office.read_csv,
    ".tsv": office.read_csv,
    ".xlsx": office.read_xlsx,
    ".xlsm": office.read_xlsx,
    ".pptx": office.read_pptx,
    ".eml": _read_mail,
}
"""The reader of each suffix: bytes and a known encoding -> the title, empty where there is none, and the text."""


@dataclass(frozen=True, slots=True)
class LangChainLoader:
    """A loader's class and the arguments that it is constructed with for each file."""

    path: str
    made_of: type
    arguments: Mapping[str, Any]

    @classmethod
    def from_import_path(cls, path: str, arguments: Mapping[str, Any]) -> LangChainLoader:
        """The loader at an import path such as `langchain_community.document_loaders:TextLoader`.

        Raises:
            InvalidConfiguration: there is no such class, or it is no loader.
        """
        from langchain_core.document_loaders import BaseLoader

        return cls(path, load_class(path, BaseLoader, "--loader"), arguments)

    def load_file(self, path: Path, source: str) -> Document:
        """The document in one file; the parts that the loader makes of it are joined.

        Raises:
            UnreadableDocument: the loader cannot be constructed, cannot read it, or finds no text.
        """
        parts = list(self._parts(str(path)))
        text = "\n\n".join(text for text, _ in parts)
        titles = [str(metadata["title"]) for _, metadata in parts if metadata.get("title")]
        return make_document(source, titles[0] if titles else path.stem, text, is_text=True)

    def load_all(self) -> Iterator[Document]:
        """The documents that the loader finds by its arguments alone, one for each source.

        Raises:
            UnreadableDocument: the loader cannot be constructed, cannot read, or finds no text.
        """
        by_source: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for text, metadata in self._parts():
            by_source.setdefault(str(metadata.get("source") or self.path)[:MAX_SOURCE], []).append((text, metadata))
        if not by_source:
            raise UnreadableDocument(f"{self.path} found nothing")
        for source, parts in by_source.items():
            title = str(parts[0][1].get("title") or source)
            yield make_document(source, title, "\n\n".join(text for text, _ in parts), is_text=True)

    def _parts(self, *path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        with silence_community_notice(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a loader's own, of the packages that it wraps
            try:
                loader = self.made_of(*path, **self.arguments)
                found = list(loader.lazy_load())
            except ImportError as error:
                raise UnreadableDocument(f"{self.path} needs another package ({error})") from error
            except TypeError as error:
                raise UnreadableDocument(f"{self.path} does not take these arguments ({error})") from error
            except Exception as error:  # a loader raises whatever the packages that it wraps do
                raise UnreadableDocument(f"{self.path} cannot read it ({type(error).__name__}: {error})") from error
        for each in found:
            yield str(each.page_content), dict(each.metadata or {})
