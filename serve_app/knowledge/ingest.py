"""How does a document become findable?

It is replaced in an order that a crash cannot harm: its new passages are stored, then its record in Redis changes, then
its old passages are deleted. A search counts only the passages that the records name, and the next writer finishes what
one left undone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal

from serve_app.errors import ModelUnavailable, NotFound, StoreCorrupt
from serve_app.knowledge.document_store import DocumentRecord
from serve_app.knowledge.index_entries import IndexEntry, digest, document_id
from serve_app.knowledge.passage_store import DocumentVersion
from serve_app.knowledge.sparse import frequencies
from serve_app.values import IndexingResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serve_app.knowledge.document_store import DocumentStore
    from serve_app.knowledge.embedding import Embedder
    from serve_app.knowledge.passage_store import PassageStore
    from serve_app.stores.lease import Lease
    from serve_app.values import Document, DocumentSummary

logger = logging.getLogger(__name__)

Prepare = Callable[["Document"], Awaitable[list[IndexEntry]]]
"""Splits and weighs a document, off the event loop."""

Status = Literal["added", "replaced", "unchanged"]


class Ingest:
    """Writes one tenant's documents."""

    def __init__(
        self, tenant: str, registry: DocumentStore, passages: PassageStore, prepare: Prepare, embedder: Embedder | None
    ) -> None:
        self._tenant = tenant
        self._registry = registry
        self._passages = passages
        self._prepare = prepare
        self._embedder = embedder

    async def is_done(self, documents: list[Document]) -> list[IndexingResult] | None:
        """The results, where nothing is left to do."""
        records = await self._registry.records(self._id(each) for each in documents)
        if await self._registry.unsettled() or any(not self._unchanged(each, records) for each in documents):
            return None
        return [self._indexed(each, "unchanged", records[self._id(each)].passages) for each in documents]

    async def finish(self) -> None:
        """Delete the passages that an interrupted writer left and no record names."""
        for document in await self._registry.unsettled():
            try:
                records = await self._registry.records([document])
                await self._clear(document, records.get(document))
            except StoreCorrupt:
                logger.exception("document_not_settled", extra={"document": document})

    async def put(self, lease: Lease, document: Document) -> IndexingResult:
        """Index `document`, replacing what its source held.

        Raises:
            StoreUnavailable: a store did not answer; the next writer finishes or takes back what was begun.
        """
        key = self._id(document)
        records = await self._registry.records([key])
        if self._unchanged(document, records):
            return self._indexed(document, "unchanged", records[key].passages)
        try:
            prepared = await self._prepare(document)
            vectors = await self._embedder.documents([entry.text for entry in prepared]) if self._embedder else None
        except ModelUnavailable as error:
            return self.failed(document, error.message)
        except Exception as error:  # one document that cannot be split stops no other
            logger.warning("document_not_split", extra={"source": document.source}, exc_info=error)
            return self.failed(document, "The document could not be split")
        if not prepared:
            return self.failed(document, "The document has no text to search for")
        await self._replace(lease, document, prepared, vectors)
        return self._indexed(document, "replaced" if key in records else "added", len(prepared))

    async def remove(self, lease: Lease, document_id: str) -> DocumentSummary:
        """Remove a document and its passages; what it was.

        Raises:
            NotFound: there is no such document.
            StoreUnavailable: a store did not answer; the next writer finishes what was begun.
        """
        record = (await self._registry.records([document_id])).get(document_id)
        if record is None:
            raise NotFound("There is no such document")
        await self._registry.unsettle(document_id)
        await self._registry.drop(lease, document_id, record)
        await self._clear(document_id, None)
        return record.summary(document_id)

    async def _replace(
        self, lease: Lease, document: Document, prepared: list[IndexEntry], vectors: list[list[float]] | None
    ) -> None:
        key = self._id(document)
        record = DocumentRecord(
            source=document.source,
            title=document.title or prepared[0].title.split(" > ")[0],
            digest=digest(document),
            passages=len(prepared),
            characters=len(document.text),
            indexed_at=time.time(),
        )
        await self._registry.unsettle(key)
        await self._passages.put(DocumentVersion(self._tenant, key, document.source, record.digest), prepared, vectors)
        await self._registry.put(lease, key, record, frequencies(entry.weights for entry in prepared))
        await self._clear(key, record)

    async def _clear(self, document: str, record: DocumentRecord | None) -> None:
        await self._passages.keep(self._tenant, document, record.digest if record else None)
        await self._registry.settle(document)

    def _id(self, document: Document) -> str:
        return document_id(self._tenant, document.source)

    def _unchanged(self, document: Document, records: Mapping[str, DocumentRecord]) -> bool:
        record = records.get(self._id(document))
        return record is not None and record.digest == digest(document)

    def _indexed(self, document: Document, status: Status, passages: int) -> IndexingResult:
        return IndexingResult(id=self._id(document), source=document.source, status=status, passages=passages)

    def failed(self, document: Document, reason: str) -> IndexingResult:
        return IndexingResult(id=self._id(document), source=document.source, status="failed", reason=reason)
