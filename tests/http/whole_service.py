"""Runs everything behind the API in one process, with real stores and the offline model."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from http_fakes import NoTools
from http_service import Service, running

from serve_app.agent.tool_dispatch import ToolDispatcher
from serve_app.agent.turn import Turn
from serve_app.config import (
    AccessSettings,
    AgentSettings,
    HttpSettings,
    KnowledgeSettings,
    MemorySettings,
    MilvusSettings,
    ModelSettings,
    RunSettings,
)
from serve_app.knowledge.chunking import make_index_entries
from serve_app.knowledge.index import KnowledgeIndex
from serve_app.knowledge.passage_store import MilvusReplicas
from serve_app.llm.models import build_model
from serve_app.memory import ConversationMemory, largest_sessions
from serve_app.observability.spans import NullTracer
from serve_app.runs.event_log import cancel_run
from serve_app.runs.event_writer import EventWriter
from serve_app.runs.execution import RunServices
from serve_app.runs.failover import FailoverAgent
from serve_app.runs.metrics import RunMetrics
from serve_app.runs.store import RunStore
from serve_app.runs.worker import RunWorker
from serve_app.values import ApiKeyRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from serve_app.knowledge.chunking import IndexEntry
    from serve_app.values import ChatRequest, Context, DependencyCheck, Document, RunEvent, Session, SessionSizes

ALL_SCOPES = frozenset({"chat", "knowledge", "admin"})
KNOWLEDGE = {"timeout_s": 5.0}
"""Patient on a busy machine."""


class Agent:
    """What the Agent deployment does, in this process; implements `ports.Agent`."""

    def __init__(self, redis: Redis, retriever: KnowledgeIndex) -> None:
        self._redis = redis
        self._memory = ConversationMemory(redis, MemorySettings())
        belt = ToolDispatcher(NoTools(), retriever, KnowledgeSettings(**KNOWLEDGE), time.monotonic)
        turn = Turn(
            model=build_model(ModelSettings()),
            model_name="offline",
            tools=belt,
            memory=self._memory,
            settings=AgentSettings(),
        )
        registry = RunStore(redis, RunSettings(), self._memory, uuid4().hex)
        means = RunServices(redis, registry, EventWriter(registry), RunSettings(), turn.run, NullTracer())
        self.host = RunWorker(means, max_runs=100)

    async def turn(self, context: Context, request: ChatRequest, after: int = 0) -> AsyncIterator[RunEvent]:
        async for event in self.host.follow(context, request, after):
            if request.stream or event.last:
                yield event

    async def start(self, context: Context, request: ChatRequest) -> None:
        self.host.start(context, request)

    async def session(self, context: Context, limit: int) -> Session:
        return await self._memory.session(context, limit)

    async def sizes(self, context: Context, limit: int) -> SessionSizes:
        return await largest_sessions(self._redis, context, limit)

    async def forget(self, context: Context) -> None:
        if holder := await self._memory.forget(context):
            await cancel_run(self._redis, holder, RunSettings().steps_ttl_s, RunMetrics())

    async def checks(self) -> list[DependencyCheck]:
        return []


class Whole(Service):
    """The service with everything in it."""

    async def key_of(self, tenant: str) -> dict[str, str]:
        """The header of a new key for everything of the tenant."""
        made = await self.keys.create(ApiKeyRequest(tenant=tenant, scopes=ALL_SCOPES))
        return {"Authorization": f"Bearer {made.key}"}


async def _make_entries(document: Document) -> list[IndexEntry]:
    return await asyncio.to_thread(make_index_entries, document)


@asynccontextmanager
async def whole_service(redis: Redis, redis_url: str, milvus_url: str) -> AsyncIterator[Whole]:
    """Everything, until the end of the block."""
    knowledge = KnowledgeSettings(collection=f"c{uuid4().hex}", **KNOWLEDGE)
    index = KnowledgeIndex(knowledge, redis, MilvusReplicas(MilvusSettings(url=milvus_url), knowledge), _make_entries)
    agent = Agent(redis, index)
    service = Whole(redis_url, settings=HttpSettings(), retriever=index, access=AccessSettings())
    service.agent = FailoverAgent(agent, service.runs)
    try:
        async with running(service):
            yield service
    finally:
        await agent.host.close(0)
        await index.close()
