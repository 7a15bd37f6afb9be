"""What does the knowledge base hold?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from serve_app.values.value import Value


class Passage(Value):
    """A piece of a document that was found for a query; `score` in 0..1, 1 carries all of the query."""

    document_id: str
    source: str
    title: str
    text: str
    score: float


class SearchResult(Value):
    """What a search brought: the passages that bear on the query, best first; none when none does."""

    passages: list[Passage] = []
    standby: bool = False
    """Whether the standby was searched in place of the first server."""
    lexical_only: bool = False
    """Whether it went by words alone although it should have gone by meaning too: the embedding did not answer."""


class Document(Value):
    """A document as it is sent to the knowledge base; `source` names it, the same source replaces it."""

    source: str = Field(min_length=1, max_length=1024, description="What names the document, such as its path or URL.")
    title: str = Field(default="", max_length=512, description="Shown with its passages; default the first heading.")
    text: str = Field(min_length=1, description="The document's text.")
    format: Literal["markdown", "text"] = Field(default="markdown", description="Whether headings are marked by '#'.")


class IndexingResult(Value):
    """What became of a document that was sent."""

    id: str
    source: str
    status: Literal["added", "replaced", "unchanged", "failed"]
    passages: int = 0
    reason: str | None = Field(default=None, description="Why it failed.")


class DocumentSummary(Value):
    """A document of the knowledge base."""

    id: str
    source: str
    title: str
    passages: int
    characters: int
    indexed_at: float = Field(description="Unix time in seconds.")


class DocumentList(Value):
    """A page of the knowledge base's documents, and the totals of all."""

    documents: list[DocumentSummary]
    total: int
    passages: int
