"""What is indexed of a document?"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from serve_app.knowledge.chunking import split_document
from serve_app.knowledge.sparse import passage_weights

if TYPE_CHECKING:
    from serve_app.values import Document

VERSION = 1
"""Part of every digest: raising it has documents indexed anew when they are sent again."""

MAX_CHARACTERS = 16_000
"""What Milvus takes in a text field, at four bytes a character; only a single line can be longer."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A passage with its weights, ready to be stored."""

    title: str
    text: str
    weights: dict[int, float]


def make_index_entries(document: Document) -> list[IndexEntry]:
    """The passages of `document`; CPU-heavy, so not for an event loop. One without any term is left out."""
    pieces = [
        (piece.title[:MAX_CHARACTERS], piece.text[start : start + MAX_CHARACTERS])
        for piece in split_document(document)
        for start in range(0, len(piece.text), MAX_CHARACTERS)
    ]
    weighed = [IndexEntry(title, text, passage_weights(title, text)) for title, text in pieces]
    return [entry for entry in weighed if entry.weights]


def document_id(tenant: str, source: str) -> str:
    """The same source of the same tenant is the same document."""
    return sha256(f"{tenant}\0{source}".encode()).hexdigest()[:32]


def digest(document: Document) -> str:
    """Changes when the document would be indexed differently."""
    content = "\0".join([str(VERSION), document.format, document.title, document.text])
    return sha256(content.encode()).hexdigest()[:32]
