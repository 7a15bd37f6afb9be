"""How are passages kept in Milvus, and which of them are near a query?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymilvus import CollectionSchema, DataType, FieldSchema

from serve_app.knowledge.index_entries import MAX_CHARACTERS
from serve_app.observability.null import NULL_METRICS
from serve_app.stores.milvus import CollectionMissing, MilvusCollection

if TYPE_CHECKING:
    from pymilvus import AsyncMilvusClient

    from serve_app.config import MilvusSettings
    from serve_app.knowledge.index_entries import IndexEntry
    from serve_app.ports import Metrics

BATCH = 500
"""Rows per write: far below gRPC's limit of 64 MB."""

SPARSE = {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP"}
DENSE = {"index_type": "HNSW", "metric_type": "COSINE", "params": {"M": 16, "efConstruction": 200}}
Vector = dict[int, float] | list[float]
"""Sparse, or dense."""

FIELDS = ["id", "document_id", "digest", "source", "title", "text", "sparse"]


@dataclass(frozen=True, slots=True)
class DocumentVersion:
    """Which version of which document passages belong to."""

    tenant: str
    document_id: str
    source: str
    digest: str


@dataclass(frozen=True, slots=True)
class PassageHit:
    """A passage that was found; `distance` is Milvus's, larger is nearer."""

    id: str
    document_id: str
    digest: str
    source: str
    title: str
    text: str
    weights: dict[int, float]
    distance: float


class PassageStore:
    """The passages of all tenants; every method raises `StoreUnavailable` when Milvus does not answer."""

    def __init__(self, settings: MilvusSettings, name: str, metrics: Metrics = NULL_METRICS) -> None:
        self._collection = MilvusCollection(settings, name, metrics)
        self._timeout_s = settings.timeout_s

    async def create(self, dimension: int | None) -> None:
        """Create the collection where it is missing; without `dimension` it has no dense vectors."""
        indexes: dict[str, dict[str, Any]] = {"sparse": SPARSE}
        if dimension is not None:
            indexes["dense"] = DENSE
        await self._collection.create(_schema(dimension), indexes)

    async def exist(self) -> bool:
        """Whether the collection is there."""
        try:
            await self._collection.describe(self._timeout_s)
        except CollectionMissing:
            return False
        return True

    async def put(self, origin: DocumentVersion, entries: list[IndexEntry], vectors: list[list[float]] | None) -> None:
        """Store the passages of a document, and wait until every reader sees them."""
        rows = [_row(origin, position, entry) for position, entry in enumerate(entries)]
        for row, vector in zip(rows, vectors or [], strict=bool(vectors)):
            row["dense"] = vector
        for start in range(0, len(rows), BATCH):
            await self._upsert(rows[start : start + BATCH])
        await self._seen(origin)

    async def keep(self, tenant: str, document_id: str, digest: str | None) -> None:
        """Delete the document's passages but those of `digest`."""
        which = f"tenant == {_quoted(tenant)} and document_id == {_quoted(document_id)}"
        if digest is not None:
            which += f" and digest != {_quoted(digest)}"

        async def delete(client: AsyncMilvusClient) -> None:
            await client.delete(self._collection.name, filter=which, timeout=self._timeout_s)

        await self._collection.call(delete, self._timeout_s)

    async def settle(self) -> None:
        """Have what was written indexed: Milvus Lite scans unflushed rows, and indexes flushed ones at a search."""
        name = self._collection.name

        async def flush_and_search(client: AsyncMilvusClient) -> None:
            await client.flush(name, timeout=self._timeout_s)
            await client.search(name, data=[{0: 1.0}], anns_field="sparse", limit=1, timeout=self._timeout_s)

        await self._collection.call(flush_and_search, self._timeout_s)

    async def near(self, tenant: str, vector: Vector, limit: int, timeout_s: float) -> list[PassageHit]:
        """The tenant's passages nearest to a sparse or a dense vector, nearest first."""
        sparse = isinstance(vector, dict)

        async def search(client: AsyncMilvusClient) -> Any:
            return await client.search(
                self._collection.name,
                data=[vector],
                anns_field="sparse" if sparse else "dense",
                search_params={"metric_type": (SPARSE if sparse else DENSE)["metric_type"]},
                filter=f"tenant == {_quoted(tenant)}",
                limit=limit,
                output_fields=FIELDS,
                timeout=timeout_s,
            )

        found = await self._collection.call(search, timeout_s)
        return [_hit(each["entity"], each["distance"]) for each in found[0]]

    async def warm(self, timeout_s: float) -> None:
        """Have the collection connected and loaded by a search that finds nothing."""
        await self.near("", {0: 1.0}, 1, timeout_s)

    async def ping(self, timeout_s: float) -> None:
        """Ask whether Milvus is there."""
        await self._collection.ping(timeout_s)

    async def close(self) -> None:
        """Close the connection."""
        await self._collection.close()

    async def _upsert(self, rows: list[dict[str, Any]]) -> None:
        async def upsert(client: AsyncMilvusClient) -> None:
            await client.upsert(self._collection.name, rows, timeout=self._timeout_s)

        await self._collection.call(upsert, self._timeout_s)

    async def _seen(self, origin: DocumentVersion) -> None:
        """A strongly consistent read returns when the query nodes have what was written before it."""
        which = f"document_id == {_quoted(origin.document_id)} and digest == {_quoted(origin.digest)}"

        async def count(client: AsyncMilvusClient) -> None:
            await client.query(
                self._collection.name,
                filter=which,
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=self._timeout_s,
            )

        await self._collection.call(count, self._timeout_s)


def _schema(dimension: int | None) -> CollectionSchema:
    fields = [
        FieldSchema("id", DataType.VARCHAR, is_primary=True, max_length=128),
        FieldSchema("tenant", DataType.VARCHAR, max_length=512),
        FieldSchema("document_id", DataType.VARCHAR, max_length=64),
        FieldSchema("digest", DataType.VARCHAR, max_length=64),
        FieldSchema("source", DataType.VARCHAR, max_length=4 * 1024),
        FieldSchema("title", DataType.VARCHAR, max_length=4 * MAX_CHARACTERS),
        FieldSchema("text", DataType.VARCHAR, max_length=4 * MAX_CHARACTERS),
        FieldSchema("sparse", DataType.SPARSE_FLOAT_VECTOR),
    ]
    if dimension is not None:
        fields.append(FieldSchema("dense", DataType.FLOAT_VECTOR, dim=dimension))
    return CollectionSchema(fields, auto_id=False, enable_dynamic_field=False)


def _hit(fields: dict[str, Any], distance: float) -> PassageHit:
    return PassageHit(
        **{name: fields[name] for name in FIELDS if name != "sparse"}, weights=fields["sparse"], distance=distance
    )


def _row(origin: DocumentVersion, position: int, entry: IndexEntry) -> dict[str, Any]:
    return {
        "id": f"{origin.document_id}-{origin.digest}-{position}",
        "tenant": origin.tenant,
        "document_id": origin.document_id,
        "digest": origin.digest,
        "source": origin.source,
        "title": entry.title,
        "text": entry.text,
        "sparse": entry.weights,
    }


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
