"""Documents of the knowledge base, and the passages that a search returns."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from serve_app.values.value import Value


class Passage(Value):
    """A part of a document that a search found.

    `score` is from 0 to 1; 1 means that the passage covers the whole query.
    """

    document_id: str
    source: str
    title: str
    text: str
    score: float


class SearchResult(Value):
    """The relevant passages of a search, best first; empty if nothing is relevant."""

    passages: list[Passage] = []
    standby: bool = False
    """Whether the standby Milvus answered in place of the first one."""
    lexical_only: bool = False
    """Whether the search matched words only, because the embedding model did not answer."""


class Document(Value):
    """A document to index; a document with the same `source` replaces it."""

    source: str = Field(min_length=1, max_length=1024, description="The document's name, such as its path or URL.")
    title: str = Field(
        default="", max_length=512, description="Shown with its passages. The default is the first heading."
    )
    text: str = Field(min_length=1, description="The document's text.")
    format: Literal["markdown", "text"] = Field(
        default="markdown", description="`markdown` if lines that begin with '#' are headings."
    )


class IndexingResult(Value):
    """The outcome of indexing one document."""

    id: str
    source: str
    status: Literal["added", "replaced", "unchanged", "failed"]
    passages: int = 0
    reason: str | None = Field(default=None, description="Why it failed.")


class DocumentSummary(Value):
    """A document in the knowledge base, without its text."""

    id: str
    source: str
    title: str
    passages: int
    characters: int
    indexed_at: float = Field(description="Unix time in seconds.")


class DocumentList(Value):
    """One page of the documents, and the totals over all pages."""

    documents: list[DocumentSummary]
    total: int
    passages: int
