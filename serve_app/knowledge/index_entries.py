"""Makes the entries of the index: a document's passages with their BM25 weights."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from serve_app.knowledge.bm25 import passage_weights
from serve_app.knowledge.chunking import split_document

if TYPE_CHECKING:
    from serve_app.values import Document

VERSION = 1
"""Part of every digest. Raise it to have documents indexed again when they are sent again."""

MAX_CHARACTERS = 16_000
"""Milvus takes 64 KB in a text field, at most four bytes a character. Only a single line can be longer."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A passage with its weights, ready to be stored."""

    title: str
    text: str
    weights: dict[int, float]


def make_index_entries(document: Document) -> list[IndexEntry]:
    """The entries of `document`, without passages that have no term.

    This takes CPU time: do not call it on an event loop.
    """
    pieces = [
        (piece.title[:MAX_CHARACTERS], piece.text[start : start + MAX_CHARACTERS])
        for piece in split_document(document)
        for start in range(0, len(piece.text), MAX_CHARACTERS)
    ]
    weighed = [IndexEntry(title, text, passage_weights(title, text)) for title, text in pieces]
    return [entry for entry in weighed if entry.weights]


def make_document_id(tenant: str, source: str) -> str:
    """The id of the document of a tenant and a source."""
    return sha256(f"{tenant}\0{source}".encode()).hexdigest()[:32]


def digest_document(document: Document) -> str:
    """A digest that changes when the document would be indexed differently."""
    content = "\0".join([str(VERSION), document.format, document.title, document.text])
    return sha256(content.encode()).hexdigest()[:32]
