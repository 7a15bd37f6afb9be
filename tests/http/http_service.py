"""Serves the API over real HTTP for tests, over real stores and a scripted agent."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import redis
import uvicorn
from http_fakes import DictRetriever, FakeNodes, NoTools, ObservedRuns, ScriptedAgent

from serve_app.config import FeedbackSettings, HttpSettings, RedisSettings
from serve_app.http.app import create_api
from serve_app.http.auth import Authenticator
from serve_app.http.dependencies import Services
from serve_app.observability.metrics import InMemoryMetrics
from serve_app.observability.metrics_page import MetricsPage
from serve_app.resilience.tasks import cancel_and_wait
from serve_app.runs.feedback import FeedbackStore
from serve_app.stores.api_keys import ApiKeyCache, ApiKeyStore
from serve_app.stores.fault_store import FaultStore
from serve_app.stores.log_store import RequestLogStore, RunLogStore
from serve_app.stores.redis import create_redis_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fastapi import FastAPI
    from pydantic import SecretStr

    from serve_app.config import AccessSettings

NO_REDIS = "redis://127.0.0.1:1/0"
"""Nobody listens there."""


def empty(redis_url: str) -> str:
    """The URL of the Redis, which holds nothing any longer."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    return redis_url


@dataclass
class Service:
    """A running API, what stands behind it, and a client of it.

    The stores are the real ones over the Redis at `redis_url`; without it they are away, and runs leave no trace.
    """

    redis_url: str = NO_REDIS
    turn_timeout_s: float = 20.0
    settings: HttpSettings = field(default_factory=lambda: HttpSettings(max_chat_body_bytes=8192))
    agent: Any = field(default_factory=ScriptedAgent)
    retriever: Any = field(default_factory=DictRetriever)
    access: AccessSettings | None = None
    """None where the service needs no keys."""
    operator_key: SecretStr | None = None
    fault_injection: bool = True
    tools: NoTools = field(default_factory=NoTools)
    nodes: FakeNodes = field(default_factory=FakeNodes)
    metrics: InMemoryMetrics = field(default_factory=InMemoryMetrics)
    client: Any = None
    port: int = 0

    def __post_init__(self) -> None:
        self.redis = create_redis_client(RedisSettings(), self.redis_url)
        self.runs = ObservedRuns(self.redis)
        self.run_logs = RunLogStore(self.redis, 60)
        self.request_logs: Any = RequestLogStore(self.redis, self.run_logs, 60) if self.has_redis else None
        self.feedback = FeedbackStore(self.redis, FeedbackSettings())
        self.key_cache = ApiKeyCache(self.redis, self.operator_key)
        self.keys = ApiKeyStore(self.redis, self.key_cache)
        self.faults = FaultStore(self.redis) if self.fault_injection and self.has_redis else None
        self.authenticator = Authenticator.of(self.key_cache, self.access) if self.access else None
        if self.has_redis and isinstance(self.agent, ScriptedAgent):
            self.agent.redis = self.redis

    @property
    def has_redis(self) -> bool:
        return self.redis_url != NO_REDIS

    @property
    def services(self) -> Services:
        return Services(
            agent=self.agent,
            runs=self.runs,
            retriever=self.retriever,
            tools=self.tools,
            run_logs=self.run_logs,
            request_logs=self.request_logs,
            feedback=self.feedback,
            metrics_page=MetricsPage(self.nodes.pages),
            keys=self.keys,
            authenticator=self.authenticator,
            faults=self.faults,
            metrics=self.metrics,
            model_name="stub:glm",
        )

    @property
    def api(self) -> FastAPI:
        return create_api(self.services, self.settings, self.turn_timeout_s)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Has the stores read from Redis what they follow."""
        tasks = []
        if self.has_redis:
            await self.key_cache.refresh()
            loops = (self.runs.read_forever(), self.key_cache.refresh_forever(), self.request_logs.write_forever())
            tasks = [asyncio.create_task(each) for each in loops]
        try:
            yield
        finally:
            if isinstance(self.agent, ScriptedAgent):
                await self.agent.close()
            await cancel_and_wait(*tasks)
            await self.redis.aclose()

    async def raw(self, request: bytes) -> bytes:
        """Exactly these bytes on a connection of their own; everything that comes back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[Service]:
    config = uvicorn.Config(service.api, log_config=None, access_log=False)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    async with service.reading():
        with socket.create_server(("127.0.0.1", 0)) as listening:
            service.port = listening.getsockname()[1]
            await server.startup(sockets=[listening])
            url = f"http://127.0.0.1:{service.port}"
            async with httpx.AsyncClient(base_url=url, timeout=10, verify=False) as service.client:  # nothing to verify
                yield service
            for listener in server.servers:  # as the server's own shutdown, which takes a tenth of a second
                listener.close()
            for _ in range(1000):
                if server.server_state.connections:
                    await asyncio.sleep(0.001)
            for connection in list(server.server_state.connections):  # of clients that have not left
                connection.transport.abort()
            await asyncio.sleep(0)
            await server.lifespan.shutdown()


@contextmanager
def in_thread(service: Service) -> Iterator[str]:
    """The service's URL, while it runs in a thread of its own."""
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with running(service):
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    assert ready.wait(10)
    try:
        yield f"http://127.0.0.1:{service.port}"
    finally:
        stop.set()
        thread.join(10)
