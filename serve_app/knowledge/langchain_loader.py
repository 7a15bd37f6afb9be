"""Reads documents with any LangChain document loader, named by its import path."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serve_app.config.class_path import load_class, silence_community_notice
from serve_app.knowledge.document_reader import make_document
from serve_app.knowledge.formats.text_decoding import UnreadableDocument

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from serve_app.values import Document

MAX_SOURCE = 1024
"""The limit of `Document.source`, in characters."""


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
