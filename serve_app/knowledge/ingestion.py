"""Writes a tenant's documents to the index, one writer at a time.

A document is replaced in an order that a crash cannot harm: its new passages are stored, then its record in Redis
changes, then its old passages are deleted. A search returns only passages that the records name, and the next writer
finishes what another left undone. Concurrent writers would be unsafe on Milvus Lite.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from serve_app.errors import ModelUnavailable, NotFound, Overloaded, ServeAppError, StoreCorrupt
from serve_app.knowledge.bm25 import passage_frequencies
from serve_app.knowledge.chunking import IndexEntry
from serve_app.knowledge.document_store import DocumentRecord
from serve_app.knowledge.passage_store import DocumentVersion
from serve_app.stores.lease import LEASE_MS, Lease, hold_lease
from serve_app.values import IndexingResult

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

    from redis.asyncio import Redis

    from serve_app.knowledge.document_store import DocumentStore
    from serve_app.knowledge.embedding import Embedder
    from serve_app.knowledge.passage_store import PassageStore
    from serve_app.values import Document, DocumentSummary

logger = logging.getLogger(__name__)

MakeEntries = Callable[["Document"], Awaitable[list[IndexEntry]]]
"""Splits and weighs a document, off the event loop."""

VERSION = 1
"""Part of every digest. Raise it to have documents indexed again when they are sent again."""

Status = Literal["added", "replaced", "unchanged"]


def hold_write_lock(redis: Redis, collection: str, deadline: float) -> AbstractAsyncContextManager[Lease]:
    """Hold the right to write to `collection`, after waiting for another writer until `deadline`.

    Raises:
        Overloaded: another writer was still at work at the deadline.
        StoreUnavailable: Redis did not answer.
    """
    busy = Overloaded("Other documents are being indexed", retry_after_s=LEASE_MS / 1000, reason="index_busy")
    return hold_lease(redis, Lease(f"{collection}:writer", uuid4().hex), deadline, busy)


class DocumentWriter:
    """Adds, replaces and removes the documents of one tenant."""

    def __init__(
        self,
        tenant: str,
        documents: DocumentStore,
        passages: PassageStore,
        make_entries: MakeEntries,
        embedder: Embedder | None,
    ) -> None:
        self._tenant = tenant
        self._documents = documents
        self._passages = passages
        self._make_entries = make_entries
        self._embedder = embedder

    async def find_unchanged(self, documents: list[Document]) -> list[IndexingResult] | None:
        """The results if nothing has to be written, else None."""
        records = await self._documents.records(self._id(each) for each in documents)
        if await self._documents.unsettled() or any(not self._is_unchanged(each, records) for each in documents):
            return None
        return [self._result(each, "unchanged", records[self._id(each)].passages) for each in documents]

    async def finish_interrupted(self) -> None:
        """Delete the passages that an interrupted writer left and no record names."""
        for document_id in await self._documents.unsettled():
            try:
                records = await self._documents.records([document_id])
                await self._delete_outdated(document_id, records.get(document_id))
            except StoreCorrupt:
                logger.exception("document_cleanup_failed", extra={"document": document_id})

    async def put(self, lease: Lease, document: Document) -> IndexingResult:
        """Index `document`, replacing what its source held; a document that fails stops no other.

        Raises:
            StoreUnavailable: a store did not answer; the next writer finishes or takes back what was begun.
        """
        try:
            return await self._put(lease, document)
        except Exception as error:
            if isinstance(error, ServeAppError) and not isinstance(error, StoreCorrupt):
                raise
            logger.exception("document_not_indexed", extra={"source": document.source})
            return self._failure(document, "The document could not be indexed")

    async def remove(self, lease: Lease, document_id: str) -> DocumentSummary:
        """Remove a document and its passages; returns what it was.

        Raises:
            NotFound: there is no such document.
            StoreUnavailable: a store did not answer; the next writer finishes what was begun.
        """
        record = (await self._documents.records([document_id])).get(document_id)
        if record is None:
            raise NotFound("There is no such document")
        await self._documents.mark_unsettled(document_id)
        await self._documents.delete(lease, document_id, record)
        await self._delete_outdated(document_id, None)
        return record.to_summary(document_id)

    async def _put(self, lease: Lease, document: Document) -> IndexingResult:
        key = self._id(document)
        records = await self._documents.records([key])
        if self._is_unchanged(document, records):
            return self._result(document, "unchanged", records[key].passages)
        try:
            entries = await self._make_entries(document)
            texts = [entry.text for entry in entries]
            vectors = await self._embedder.embed_documents(texts) if self._embedder else None
        except ModelUnavailable as error:
            return self._failure(document, error.message)
        except Exception as error:  # one document that cannot be split stops no other
            logger.warning("document_not_split", extra={"source": document.source}, exc_info=error)
            return self._failure(document, "The document could not be split")
        if not entries:
            return self._failure(document, "The document has no text to search for")
        await self._replace(lease, document, entries, vectors)
        return self._result(document, "replaced" if key in records else "added", len(entries))

    async def _replace(
        self, lease: Lease, document: Document, entries: list[IndexEntry], vectors: list[list[float]] | None
    ) -> None:
        key = self._id(document)
        record = DocumentRecord(
            source=document.source,
            title=document.title or entries[0].title.split(" > ")[0],
            digest=digest_document(document),
            passages=len(entries),
            characters=len(document.text),
            indexed_at=time.time(),
        )
        await self._documents.mark_unsettled(key)
        await self._passages.put(DocumentVersion(self._tenant, key, document.source, record.digest), entries, vectors)
        await self._documents.put(lease, key, record, passage_frequencies(entry.weights for entry in entries))
        await self._delete_outdated(key, record)

    async def _delete_outdated(self, document_id: str, record: DocumentRecord | None) -> None:
        await self._passages.delete_other_versions(self._tenant, document_id, record.digest if record else None)
        await self._documents.mark_settled(document_id)

    def _id(self, document: Document) -> str:
        return make_document_id(self._tenant, document.source)

    def _is_unchanged(self, document: Document, records: Mapping[str, DocumentRecord]) -> bool:
        record = records.get(self._id(document))
        return record is not None and record.digest == digest_document(document)

    def _result(self, document: Document, status: Status, passages: int) -> IndexingResult:
        return IndexingResult(id=self._id(document), source=document.source, status=status, passages=passages)

    def _failure(self, document: Document, reason: str) -> IndexingResult:
        return IndexingResult(id=self._id(document), source=document.source, status="failed", reason=reason)


def make_document_id(tenant: str, source: str) -> str:
    """The id of the document of a tenant and a source."""
    return sha256(f"{tenant}\0{source}".encode()).hexdigest()[:32]


def digest_document(document: Document) -> str:
    """A digest that changes when the document would be indexed differently."""
    content = "\0".join([str(VERSION), document.format, document.title, document.text])
    return sha256(content.encode()).hexdigest()[:32]
