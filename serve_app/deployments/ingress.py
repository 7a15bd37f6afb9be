"""The process that speaks HTTP; it imports neither LangChain nor pymilvus."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

from ray import serve

from serve_app.deployments.remote import RemoteAgent, RemoteRetriever, remote_tools
from serve_app.deployments.serve_spans import WithinServeSpan
from serve_app.errors import Internal
from serve_app.http.api import create_api
from serve_app.http.parts import Parts
from serve_app.http.request_ids import EchoedOutside
from serve_app.runs.log import RunLog
from serve_app.runs.surviving import SurvivingAgent
from serve_app.stores.faults import FaultBoard
from serve_app.stores.redis import connect

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve.handle import DeploymentHandle

    from serve_app.config import Settings


@serve.deployment
@serve.ingress()
class Ingress:
    """The HTTP API over the other deployments."""

    def __init__(
        self,
        settings: Settings,
        agent: DeploymentHandle,
        retriever: DeploymentHandle,
        tools: dict[str | None, DeploymentHandle],
    ) -> None:
        self._settings = settings
        redis = connect(settings.redis, settings.redis.url)
        self._runs = RunLog(redis, settings.runs)
        self._parts = Parts(
            agent=SurvivingAgent(RemoteAgent(agent), self._runs),
            runs=self._runs,
            retriever=RemoteRetriever(retriever),
            tools=remote_tools(settings.tools, tools),
            faults=FaultBoard(redis) if settings.faults.enabled else None,
        )
        self._reading: asyncio.Task[None] | None = None

    async def __serve_build_asgi_app__(self) -> FastAPI:
        self._reading = asyncio.create_task(self._runs.go_on(), context=contextvars.Context())
        api = create_api(self._parts, self._settings.http, self._settings.agent.turn_timeout_s)
        api.add_middleware(EchoedOutside)
        api.add_middleware(WithinServeSpan)
        return api

    def check_health(self) -> None:
        if self._reading and self._reading.done():
            raise Internal("the runs' logs are read no longer")
