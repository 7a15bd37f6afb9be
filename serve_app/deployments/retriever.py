"""The process that finds passages and keeps the documents they come from."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

import ray
from ray import serve

from serve_app.deployments.metrics import metrics_of
from serve_app.knowledge.index import Index, entries
from serve_app.knowledge.servers import Servers
from serve_app.observability.pulse import beat
from serve_app.stores.redis import OUTLASTS_RESTART, connect

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

    from serve_app.config import Settings
    from serve_app.knowledge.index import Entry
    from serve_app.values import Catalogue, Check, Context, Document, DocumentSummary, Found, Indexed


@serve.deployment
class Retriever:
    """`ports.Retriever`, as a deployment.

    A document is split in a Ray task: its regular expressions would hold the interpreter that answers searches.
    """

    async def __init__(self, settings: Settings, stores: DeploymentHandle | None) -> None:  # type: ignore[misc]  # Serve awaits it
        if stores is not None:
            await stores.ready.remote()
        self._split = ray.remote(num_cpus=0, max_retries=1)(entries)
        metrics = metrics_of(exported=settings.observability.metrics)
        redis = connect(settings.redis, settings.redis.url, OUTLASTS_RESTART, metrics)
        servers = Servers(settings.milvus, settings.knowledge, metrics=metrics)
        self._index = Index(settings.knowledge, redis, servers, self._prepared)
        self._beating = asyncio.create_task(beat(metrics, self._breakers), context=contextvars.Context())
        await self._index.warm()

    async def _prepared(self, document: Document) -> list[Entry]:
        return await self._split.remote(document)

    async def search(self, context: Context, query: str) -> Found:
        return await self._index.search(context, query)

    async def add(self, context: Context, documents: list[Document]) -> list[Indexed]:
        return await self._index.add(context, documents)

    async def documents(self, context: Context, offset: int, limit: int) -> Catalogue:
        return await self._index.documents(context, offset, limit)

    async def remove(self, context: Context, document_id: str) -> DocumentSummary:
        return await self._index.remove(context, document_id)

    async def checks(self) -> list[Check]:
        return await self._index.checks()

    def _breakers(self) -> dict[str, str]:
        return {name: circuit.state for name, circuit in self._index.circuits.items()}
