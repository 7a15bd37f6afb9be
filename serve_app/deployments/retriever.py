"""The process that finds passages and keeps the documents they come from."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import ray
from ray import serve

from serve_app.deployments.runtime import ReplicaRuntime
from serve_app.knowledge.chunking import make_index_entries
from serve_app.knowledge.index import KnowledgeIndex
from serve_app.knowledge.passage_store import MilvusReplicas
from serve_app.observability.logs import log_context
from serve_app.resilience.deadline import elapsed_ms
from serve_app.stores.log_store import RunLogStore
from serve_app.stores.redis import RETRIES_DURING_RESTART

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

    from serve_app.config import Settings
    from serve_app.knowledge.chunking import IndexEntry
    from serve_app.values import (
        Context,
        DependencyCheck,
        Document,
        DocumentList,
        DocumentSummary,
        IndexingResult,
        SearchResult,
    )


logger = logging.getLogger(__name__)


@serve.deployment
class Retriever:
    """Deployment of `ports.Retriever`.

    A Ray task splits each document, because splitting would block the process that answers searches.
    """

    async def __init__(self, settings: Settings, stores: DeploymentHandle | None) -> None:  # type: ignore[misc]  # Serve awaits it
        self._runtime = runtime = ReplicaRuntime(settings.observability)
        if stores is not None:
            await stores.checks.remote()  # answers when the stores have started
        self._split = ray.remote(num_cpus=0, max_retries=1)(make_index_entries)
        redis = runtime.open_redis(settings.redis, RETRIES_DURING_RESTART)
        replicas = MilvusReplicas(settings.milvus, settings.knowledge, metrics=runtime.metrics)
        self._index = KnowledgeIndex(settings.knowledge, redis, replicas, self._make_entries)
        runtime.on_close("milvus", self._index.close)
        runtime.start_process_metrics(self._breakers)
        run_log = RunLogStore(redis, settings.runs.steps_ttl_s)
        runtime.start_task("run_log", run_log.write_forever(runtime.run_log_handler))
        await self._index.warm_up()

    async def _make_entries(self, document: Document) -> list[IndexEntry]:
        return await self._split.remote(document)

    async def search(self, context: Context, query: str) -> SearchResult:
        with log_context(context.ids):
            begun = time.monotonic()
            found = await self._index.search(context, query)
            fields = {"query": query, "passages": len(found.passages), "standby": found.standby}
            logger.debug("searched", extra={**fields, "elapsed_ms": elapsed_ms(begun)})
            return found

    async def add(self, context: Context, documents: list[Document]) -> list[IndexingResult]:
        with log_context({"request_id": context.request_id}):
            return await self._index.add(context, documents)

    async def documents(self, context: Context, offset: int, limit: int) -> DocumentList:
        return await self._index.documents(context, offset, limit)

    async def remove(self, context: Context, document_id: str) -> DocumentSummary:
        return await self._index.remove(context, document_id)

    async def checks(self) -> list[DependencyCheck]:
        return await self._index.checks()

    def check_health(self) -> None:
        self._runtime.check_tasks()

    async def __del__(self) -> None:
        await self._runtime.close()

    def _breakers(self) -> dict[str, str]:
        return {name: circuit.state for name, circuit in self._index.circuits.items()}
