"""Stores in Redis a tenant's document records and the passage frequencies of terms.

A script changes a document's record and the frequencies of its terms in one step, so that they agree whenever a writer
dies. A document is `unsettled` while Milvus may hold passages of it that the record does not name.

Each change sets a new `version` in the same step: an answer found under another version may be out of date. A search
returns only what the records name, so it finds the new text from that step on. The version changes once more when the
old passages are deleted, because until then they may take places among the hits.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from serve_app.errors import StoreUnavailable
from serve_app.stores.redis import translate_redis_errors
from serve_app.stores.redis_keys import documents_version_key
from serve_app.values import DocumentSummary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from redis.asyncio import Redis

    from serve_app.stores.lease import Lease

logger = logging.getLogger(__name__)

PASSAGES = "passages"
"""The field of the frequencies hash that counts all passages; the other fields are term ids."""

# KEYS: lease, documents, terms, sources, frequencies, version
# ARGV: holder, document id, its member of sources, new record or '', new terms, new version,
#       then pairs of a field and its change
APPLY = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[2], ARGV[2])
  redis.call('HDEL', KEYS[3], ARGV[2])
  redis.call('ZREM', KEYS[4], ARGV[3])
else
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[4])
  redis.call('HSET', KEYS[3], ARGV[2], ARGV[5])
  redis.call('ZADD', KEYS[4], 0, ARGV[3])
end
redis.call('SET', KEYS[6], ARGV[6])
for i = 7, #ARGV, 2 do
  if redis.call('HINCRBY', KEYS[5], ARGV[i], ARGV[i + 1]) <= 0 then redis.call('HDEL', KEYS[5], ARGV[i]) end
end
return 1
"""


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """What Redis holds of a document; only passages with its `digest` count."""

    source: str
    title: str
    digest: str
    passages: int
    characters: int
    indexed_at: float

    def to_summary(self, document_id: str) -> DocumentSummary:
        """As the API shows it."""
        fields = {name: value for name, value in asdict(self).items() if name != "digest"}
        return DocumentSummary(id=document_id, **fields)


@dataclass(frozen=True, slots=True)
class DocumentPage:
    """A page of documents in order of their sources, and the totals of all documents."""

    documents: list[DocumentSummary]
    total: int
    passages: int


class DocumentStore:
    """The documents of one tenant; every method may raise `StoreUnavailable`."""

    def __init__(self, redis: Redis, collection: str, tenant: str) -> None:
        self._redis: Any = redis
        prefix = f"{collection}:{tenant}"
        self._documents = f"{prefix}:documents"
        self._terms = f"{prefix}:terms"
        self._sources = f"{prefix}:sources"
        self._frequencies = f"{prefix}:frequencies"
        self._unsettled = f"{prefix}:unsettled"
        self._version = documents_version_key(collection, tenant)

    async def statistics(self, terms: Iterable[int]) -> tuple[int, dict[int, int]]:
        """The number of passages, and the number that have each of `terms`."""
        wanted = list(terms)
        with translate_redis_errors():
            total, *found = await self._redis.hmget(self._frequencies, [PASSAGES, *wanted])
        return _parse_count(total), {term: _parse_count(count) for term, count in zip(wanted, found, strict=True)}

    async def records(self, document_ids: Iterable[str]) -> dict[str, DocumentRecord]:
        """The records of the documents that exist."""
        wanted = list(document_ids)
        if not wanted:
            return {}
        with translate_redis_errors():
            found = await self._redis.hmget(self._documents, wanted)
        records = {key: _parse_record(key, value) for key, value in zip(wanted, found, strict=True) if value}
        return {key: record for key, record in records.items() if record}

    async def page(self, offset: int, limit: int) -> DocumentPage:
        """A page of documents by source."""
        with translate_redis_errors():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.zrange(self._sources, offset, offset + limit - 1)
            pipeline.zcard(self._sources)
            pipeline.hget(self._frequencies, PASSAGES)
            members, total, passages = await pipeline.execute()
        ids = [member.rpartition("\0")[2] for member in members]
        records = await self.records(ids)
        summaries = [records[each].to_summary(each) for each in ids if each in records]
        return DocumentPage(summaries, total, _parse_count(passages))

    async def unsettled(self) -> list[str]:
        """The ids of documents whose writer did not finish."""
        with translate_redis_errors():
            return sorted(await self._redis.smembers(self._unsettled))

    async def mark_unsettled(self, document_id: str) -> None:
        """Record that Milvus may hold passages of the document that its record does not name."""
        with translate_redis_errors():
            await self._redis.sadd(self._unsettled, document_id)

    async def mark_settled(self, document_id: str) -> None:
        """Record that Milvus holds the passages that the record names, and no others."""
        with translate_redis_errors():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.srem(self._unsettled, document_id)
            pipeline.set(self._version, uuid4().hex)
            await pipeline.execute()

    async def put(self, lease: Lease, document_id: str, record: DocumentRecord, terms: Mapping[int, int]) -> None:
        """Set the document's record; `terms` counts the passages of the document that have each term.

        Raises:
            StoreUnavailable: Redis did not answer, or `lease` is lost: nothing has changed.
        """
        counts = {PASSAGES: record.passages} | {str(term): count for term, count in terms.items()}
        await self._apply(lease, document_id, record, json.dumps(asdict(record)), counts)

    async def delete(self, lease: Lease, document_id: str, record: DocumentRecord) -> None:
        """Delete the document's record.

        Raises:
            StoreUnavailable: Redis did not answer, or `lease` is lost: nothing has changed.
        """
        await self._apply(lease, document_id, record, "", {})

    async def _apply(
        self, lease: Lease, document_id: str, record: DocumentRecord, value: str, counts: dict[str, int]
    ) -> None:
        with translate_redis_errors():
            before = _parse_terms(document_id, await self._redis.hget(self._terms, document_id) or "{}")
            changes = {field: counts.get(field, 0) - before.get(field, 0) for field in {*counts, *before}}
            applied = await self._redis.eval(
                APPLY,
                6,
                *(lease.key, self._documents, self._terms, self._sources, self._frequencies, self._version),
                *(lease.holder, document_id, f"{record.source}\0{document_id}", value, json.dumps(counts), uuid4().hex),
                *(part for field, change in changes.items() if change for part in (field, change)),
            )
        if not applied:
            raise StoreUnavailable("Another replica has taken over the index")


def _parse_record(document_id: str, written: str) -> DocumentRecord | None:
    """The record; None where it is unreadable, so that its document can be sent again."""
    try:
        return DocumentRecord(**json.loads(written))
    except (ValueError, TypeError):
        logger.exception("document_record_unreadable", extra={"document": document_id})
        return None


def _parse_terms(document_id: str, written: str) -> dict[str, int]:
    """The counts of the document's terms; empty where they cannot be read."""
    try:
        return {term: int(count) for term, count in json.loads(written).items()}
    except (ValueError, TypeError, AttributeError):
        logger.exception("document_terms_unreadable", extra={"document": document_id})
        return {}


def _parse_count(written: str | None) -> int:
    try:
        return int(written or 0)
    except ValueError:
        logger.exception("passage_count_unreadable")
        return 0
