"""Searches Milvus, and its standby where Milvus does not answer."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from serve_app.errors import StoreUnavailable
from serve_app.knowledge.passage_store import PassageStore
from serve_app.observability.null import NULL_METRICS
from serve_app.resilience.circuit_breaker import BreakerPolicy, GuardedCalls
from serve_app.resilience.fault_injection import GARBAGE, inject_fault
from serve_app.stores.milvus import translate_milvus_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serve_app.config import KnowledgeSettings, MilvusSettings
    from serve_app.knowledge.passage_store import PassageHit, Vector
    from serve_app.ports import Metrics
    from serve_app.values import Context

logger = logging.getLogger(__name__)

BREAKER = BreakerPolicy(failures=5, cool_down_s=5)
"""Fewer failures may be a hiccup. The embedded Milvus restarts within five seconds; a probe that comes too early costs
one search half a second."""


@dataclass(frozen=True, slots=True)
class ReplicaHits:
    """The hits of each vector, by the vector's name, and whether the standby found them."""

    hits: dict[str, list[PassageHit]]
    standby: bool


class MilvusReplica:
    """One Milvus, whose searches go through a circuit breaker."""

    def __init__(self, name: str, passages: PassageStore, timeout_s: float, limit: BreakerPolicy) -> None:
        self.passages = passages
        self.circuit = GuardedCalls(name, limit)
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
        limit: BreakerPolicy = BREAKER,
        metrics: Metrics = NULL_METRICS,
    ) -> None:
        self.passages = PassageStore(milvus, knowledge.collection, metrics)
        self.all = [MilvusReplica("milvus", self.passages, knowledge.timeout_s, limit)]
        if milvus.standby is not None:
            second = milvus.model_copy(update={"url": milvus.standby})
            standby = PassageStore(second, knowledge.collection, metrics)
            self.all.append(MilvusReplica("milvus:standby", standby, knowledge.timeout_s, limit))

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
