"""How is the API served over real HTTP for a test?"""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import uvicorn
from http_fakes import (
    KeptFaults,
    KeptFeedback,
    KeptKeys,
    ListedNodes,
    ListedRetriever,
    LoggedRuns,
    NoTools,
    ScriptedAgent,
    ToldLines,
)

from serve_app.config import HttpSettings
from serve_app.http.app import create_api
from serve_app.http.services import Services
from serve_app.observability.metrics_page import MetricsPage
from serve_app.observability.null import InMemoryMetrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fastapi import FastAPI

    from serve_app.http.auth import Authenticator
    from serve_app.values import RunLogLine


@dataclass
class Service:
    """A running API, what stands behind it, and a client of it."""

    turn_timeout_s: float = 20.0
    settings: HttpSettings = field(default_factory=lambda: HttpSettings(max_chat_body_bytes=8192))
    runs: LoggedRuns = field(default_factory=LoggedRuns)
    retriever: ListedRetriever = field(default_factory=ListedRetriever)
    tools: NoTools = field(default_factory=NoTools)
    nodes: ListedNodes = field(default_factory=ListedNodes)
    metrics: InMemoryMetrics = field(default_factory=InMemoryMetrics)
    faults: KeptFaults | None = field(default_factory=KeptFaults)
    keys: KeptKeys = field(default_factory=KeptKeys)
    authenticator: Authenticator | None = None
    told: tuple[RunLogLine, ...] = ()
    client: Any = None
    port: int = 0

    def __post_init__(self) -> None:
        self.agent = ScriptedAgent(self.runs)
        self.lines = ToldLines(self.runs, self.told)
        self.feedback = KeptFeedback(self.runs)

    @property
    def services(self) -> Services:
        return Services(
            agent=self.agent,
            runs=self.runs,
            retriever=self.retriever,
            tools=self.tools,
            run_logs=self.lines,
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
    with socket.create_server(("127.0.0.1", 0)) as listening:
        service.port = listening.getsockname()[1]
        await server.startup(sockets=[listening])
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}", timeout=10) as service.client:
            yield service
        for listener in server.servers:  # as the server's own shutdown, which takes a tenth of a second
            listener.close()
        for _ in range(1000):
            if server.server_state.connections:
                await asyncio.sleep(0.001)
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
    yield f"http://127.0.0.1:{service.port}"
    stop.set()
    thread.join(10)
