"""The process that finds passages and keeps the documents they come from."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from typing import TYPE_CHECKING

import ray
from ray import serve

from serve_app.deployments.replica_logs import redact_logs
from serve_app.deployments.replica_metrics import create_metrics
from serve_app.knowledge.index import KnowledgeIndex
from serve_app.knowledge.index_entries import make_index_entries
from serve_app.knowledge.replicas import MilvusReplicas
from serve_app.observability.logs import log_context
from serve_app.observability.process_metrics import report_process_metrics
from serve_app.resilience.deadline import elapsed_ms
from serve_app.resilience.tasks import cancel_and_wait
from serve_app.stores.redis import RETRIES_DURING_RESTART, create_redis_client
from serve_app.stores.run_log import RunLogStore

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

    from serve_app.config import Settings
    from serve_app.knowledge.index_entries import IndexEntry
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
        run_log_handler = redact_logs(settings.observability)
        if stores is not None:
            await stores.ready.remote()
        self._split = ray.remote(num_cpus=0, max_retries=1)(make_index_entries)
        metrics = create_metrics(exported=settings.observability.metrics)
        self._redis = create_redis_client(settings.redis, settings.redis.url, RETRIES_DURING_RESTART, metrics)
        replicas = MilvusReplicas(settings.milvus, settings.knowledge, metrics=metrics)
        self._index = KnowledgeIndex(settings.knowledge, self._redis, replicas, self._make_entries)
        self._reporting_metrics = asyncio.create_task(
            report_process_metrics(metrics, self._breakers), context=contextvars.Context()
        )
        self._writing_logs = asyncio.create_task(
            RunLogStore(self._redis, settings.runs.steps_ttl_s).write_forever(run_log_handler),
            context=contextvars.Context(),
        )
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

    async def __del__(self) -> None:
        """Close what the replica opened; Serve awaits this after the last call."""
        await cancel_and_wait(self._writing_logs, self._reporting_metrics)
        await self._index.close()
        await self._redis.aclose()

    def _breakers(self) -> dict[str, str]:
        return {name: circuit.state for name, circuit in self._index.circuits.items()}
