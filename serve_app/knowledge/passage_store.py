"""Stores passages in Milvus, and searches it, or its standby where it does not answer."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pymilvus import CollectionSchema, DataType, FieldSchema

from serve_app.errors import StoreUnavailable
from serve_app.knowledge.chunking import ENTRY_CHARACTERS
from serve_app.observability.metrics import NULL_METRICS
from serve_app.resilience.circuit_breaker import BreakerPolicy, GuardedCalls
from serve_app.resilience.fault_injection import GARBAGE, inject_fault
from serve_app.stores.milvus import CollectionMissing, MilvusCollection, translate_milvus_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymilvus import AsyncMilvusClient

    from serve_app.config import KnowledgeSettings, MilvusSettings
    from serve_app.knowledge.chunking import IndexEntry
    from serve_app.ports import Metrics
    from serve_app.values import Context

logger = logging.getLogger(__name__)

BATCH = 500
"""Rows per write: far below the limit of gRPC, 64 MB."""

SPARSE = {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP"}
DENSE = {"index_type": "HNSW", "metric_type": "COSINE", "params": {"M": 16, "efConstruction": 200}}
Vector = dict[int, float] | list[float]
"""Sparse, or dense."""

FIELDS = ["id", "document_id", "digest", "source", "title", "text", "sparse"]


BREAKER = BreakerPolicy(failures=5, cool_down_s=5)
"""Fewer failures may be a hiccup. The embedded Milvus restarts within five seconds; a probe that comes too early costs
one search half a second."""


@dataclass(frozen=True, slots=True)
class DocumentVersion:
    """The version of a document that passages belong to."""

    tenant: str
    document_id: str
    source: str
    digest: str


@dataclass(frozen=True, slots=True)
class PassageHit:
    """A passage that was found; `distance` is that of Milvus, where larger is nearer."""

    id: str
    document_id: str
    digest: str
    source: str
    title: str
    text: str
    weights: dict[int, float]
    distance: float


@dataclass(frozen=True, slots=True)
class ReplicaHits:
    """The hits of each vector, by the vector's name, and whether the standby found them."""

    hits: dict[str, list[PassageHit]]
    standby: bool


class PassageStore:
    """The passages of all tenants; every method may raise `StoreUnavailable`."""

    def __init__(self, settings: MilvusSettings, name: str, metrics: Metrics = NULL_METRICS) -> None:
        self._collection = MilvusCollection(settings, name, metrics)
        self._timeout_s = settings.timeout_s

    async def create(self, dimension: int | None) -> None:
        """Create the collection where it is missing; without `dimension` it has no dense vectors."""
        indexes: dict[str, dict[str, Any]] = {"sparse": SPARSE}
        if dimension is not None:
            indexes["dense"] = DENSE
        await self._collection.create(_make_schema(dimension), indexes)

    async def exists(self) -> bool:
        """Whether the collection is there."""
        try:
            await self._collection.describe(self._timeout_s)
        except CollectionMissing:
            return False
        return True

    async def put(self, version: DocumentVersion, entries: list[IndexEntry], vectors: list[list[float]] | None) -> None:
        """Store the passages of a document, and wait until every reader sees them."""
        rows = [_make_row(version, position, entry) for position, entry in enumerate(entries)]
        for row, vector in zip(rows, vectors or [], strict=bool(vectors)):
            row["dense"] = vector
        for start in range(0, len(rows), BATCH):
            await self._upsert(rows[start : start + BATCH])
        await self._wait_until_visible(version)

    async def delete_other_versions(self, tenant: str, document_id: str, digest: str | None) -> None:
        """Delete the passages of the document except those of `digest`; without a digest, all."""
        which = f"tenant == {_quote(tenant)} and document_id == {_quote(document_id)}"
        if digest is not None:
            which += f" and digest != {_quote(digest)}"

        async def delete(client: AsyncMilvusClient) -> None:
            await client.delete(self._collection.name, filter=which, timeout=self._timeout_s)

        await self._collection.call(delete, self._timeout_s)

    async def flush(self) -> None:
        """Flush and index what was written.

        Milvus Lite scans unflushed rows, and indexes flushed rows at a search.
        """
        name = self._collection.name

        async def flush_and_search(client: AsyncMilvusClient) -> None:
            await client.flush(name, timeout=self._timeout_s)
            await client.search(name, data=[{0: 1.0}], anns_field="sparse", limit=1, timeout=self._timeout_s)

        await self._collection.call(flush_and_search, self._timeout_s)

    async def search(self, tenant: str, vector: Vector, limit: int, timeout_s: float) -> list[PassageHit]:
        """The tenant's passages nearest to a sparse or a dense vector, nearest first."""
        sparse = isinstance(vector, dict)

        async def search_collection(client: AsyncMilvusClient) -> Any:
            return await client.search(
                self._collection.name,
                data=[vector],
                anns_field="sparse" if sparse else "dense",
                search_params={"metric_type": (SPARSE if sparse else DENSE)["metric_type"]},
                filter=f"tenant == {_quote(tenant)}",
                limit=limit,
                output_fields=FIELDS,
                timeout=timeout_s,
            )

        found = await self._collection.call(search_collection, timeout_s)
        return [_make_hit(each["entity"], each["distance"]) for each in found[0]]

    async def warm_up(self, timeout_s: float) -> None:
        """Connect and load the collection, by a search that finds nothing."""
        await self.search("", {0: 1.0}, 1, timeout_s)

    async def ping(self, timeout_s: float) -> None:
        """Check that Milvus answers."""
        await self._collection.ping(timeout_s)

    async def close(self) -> None:
        """Close the connection."""
        await self._collection.close()

    async def _upsert(self, rows: list[dict[str, Any]]) -> None:
        async def upsert(client: AsyncMilvusClient) -> None:
            await client.upsert(self._collection.name, rows, timeout=self._timeout_s)

        await self._collection.call(upsert, self._timeout_s)

    async def _wait_until_visible(self, version: DocumentVersion) -> None:
        """Wait until every reader sees the version.

        A strongly consistent read returns when the query nodes have what was written before it.
        """
        which = f"document_id == {_quote(version.document_id)} and digest == {_quote(version.digest)}"

        async def count(client: AsyncMilvusClient) -> None:
            await client.query(
                self._collection.name,
                filter=which,
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=self._timeout_s,
            )

        await self._collection.call(count, self._timeout_s)


def _make_schema(dimension: int | None) -> CollectionSchema:
    fields = [
        FieldSchema("id", DataType.VARCHAR, is_primary=True, max_length=128),
        FieldSchema("tenant", DataType.VARCHAR, max_length=512),
        FieldSchema("document_id", DataType.VARCHAR, max_length=64),
        FieldSchema("digest", DataType.VARCHAR, max_length=64),
        FieldSchema("source", DataType.VARCHAR, max_length=4 * 1024),
        FieldSchema("title", DataType.VARCHAR, max_length=4 * ENTRY_CHARACTERS),
        FieldSchema("text", DataType.VARCHAR, max_length=4 * ENTRY_CHARACTERS),
        FieldSchema("sparse", DataType.SPARSE_FLOAT_VECTOR),
    ]
    if dimension is not None:
        fields.append(FieldSchema("dense", DataType.FLOAT_VECTOR, dim=dimension))
    return CollectionSchema(fields, auto_id=False, enable_dynamic_field=False)


def _make_hit(fields: dict[str, Any], distance: float) -> PassageHit:
    return PassageHit(
        **{name: fields[name] for name in FIELDS if name != "sparse"}, weights=fields["sparse"], distance=distance
    )


def _make_row(version: DocumentVersion, position: int, entry: IndexEntry) -> dict[str, Any]:
    return {
        "id": f"{version.document_id}-{version.digest}-{position}",
        "tenant": version.tenant,
        "document_id": version.document_id,
        "digest": version.digest,
        "source": version.source,
        "title": entry.title,
        "text": entry.text,
        "sparse": entry.weights,
    }


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


class MilvusReplica:
    """One Milvus, whose searches go through a circuit breaker."""

    def __init__(self, name: str, passages: PassageStore, timeout_s: float, policy: BreakerPolicy) -> None:
        self.passages = passages
        self.circuit = GuardedCalls(name, policy)
        self._timeout_s = timeout_s

    async def search(self, context: Context, vectors: Mapping[str, Vector], limit: int) -> dict[str, list[PassageHit]]:
        """The tenant's hits of each vector, all within the time of one search.

        Raises:
            StoreUnavailable: the server did not answer in time or refused, or its breaker is open.
        """
        with self.circuit.guard(StoreUnavailable, (StoreUnavailable,)), translate_milvus_errors():
            async with asyncio.timeout(self._timeout_s):
                garbled = await inject_fault(context.faults, "retriever", ConnectionError("an injected fault"))
                found = {
                    name: await self.passages.search(context.tenant, vector, limit, self._timeout_s)
                    for name, vector in vectors.items()
                }
        if garbled:
            return {name: [replace(hit, text=GARBAGE) for hit in hits] for name, hits in found.items()}
        return found


class MilvusReplicas:
    """The Milvus that documents are written to, and its standby, which is only read."""

    def __init__(
        self,
        milvus: MilvusSettings,
        knowledge: KnowledgeSettings,
        policy: BreakerPolicy = BREAKER,
        metrics: Metrics = NULL_METRICS,
    ) -> None:
        self.passages = PassageStore(milvus, knowledge.collection, metrics)
        self.all = [MilvusReplica("milvus", self.passages, knowledge.timeout_s, policy)]
        if milvus.standby is not None:
            second = milvus.model_copy(update={"url": milvus.standby})
            standby = PassageStore(second, knowledge.collection, metrics)
            self.all.append(MilvusReplica("milvus:standby", standby, knowledge.timeout_s, policy))

    async def search(self, context: Context, vectors: Mapping[str, Vector], limit: int) -> ReplicaHits:
        """The hits of each vector, from the first server that answers.

        Raises:
            StoreUnavailable: none did.
        """
        failures: list[StoreUnavailable] = []
        for replica in self.all:
            try:
                return ReplicaHits(await replica.search(context, vectors, limit), standby=bool(failures))
            except StoreUnavailable as error:
                logger.warning("search_failed", extra={"server": replica.circuit.name, "error": error.message})
                failures.append(error)
        raise failures[0]

    async def close(self) -> None:
        """Close the connections."""
        for replica in self.all:
            await replica.passages.close()
