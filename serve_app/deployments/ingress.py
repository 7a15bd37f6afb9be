"""The process that speaks HTTP; it imports neither LangChain nor pymilvus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray import serve

from serve_app.deployments.remote import RemoteAgent, RemoteRetriever, RemoteTools
from serve_app.http.api import create_api
from serve_app.http.request_ids import EchoedOutside

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve.handle import DeploymentHandle

    from serve_app.config import Settings


@serve.deployment
@serve.ingress()
class Ingress:
    """The HTTP API over the other deployments."""

    def __init__(
        self, settings: Settings, agent: DeploymentHandle, retriever: DeploymentHandle, tools: DeploymentHandle
    ) -> None:
        self._settings = settings
        self._agent = RemoteAgent(agent)
        self._retriever = RemoteRetriever(retriever)
        self._tools = RemoteTools(tools)

    async def __serve_build_asgi_app__(self) -> FastAPI:
        turn_timeout_s = self._settings.agent.turn_timeout_s
        api = create_api(self._agent, self._retriever, self._tools, self._settings.http, turn_timeout_s)
        api.add_middleware(EchoedOutside)
        return api
