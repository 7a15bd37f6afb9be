"""The process that speaks HTTP; it imports neither LangChain nor pymilvus."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

from ray import serve
from starlette.middleware import Middleware

from serve_app.config import read_secret
from serve_app.deployments.client_disconnect import ClientDisconnectMiddleware
from serve_app.deployments.remote import RemoteAgent, RemoteRetriever, create_remote_tools
from serve_app.deployments.replica_logs import redact_logs
from serve_app.deployments.replica_metrics import create_metrics, read_node_pages
from serve_app.deployments.serve_spans import ServeSpanMiddleware
from serve_app.errors import Internal
from serve_app.http.admission_controller import AdmissionController
from serve_app.http.app import create_api
from serve_app.http.auth import Authenticator
from serve_app.http.middleware.headers import RequestIdEchoMiddleware
from serve_app.http.services import Services
from serve_app.observability.metrics_page import MetricsPage
from serve_app.observability.process_metrics import report_process_metrics
from serve_app.observability.redaction import Redactor
from serve_app.runs.event_log import RunEventLog
from serve_app.runs.failover import FailoverAgent
from serve_app.runs.feedback import FeedbackStore
from serve_app.runs.metrics import RunMetrics
from serve_app.stores.api_key_cache import ApiKeyCache
from serve_app.stores.api_key_store import ApiKeyStore
from serve_app.stores.fault_store import FaultStore
from serve_app.stores.rate_limiter import RateLimiter
from serve_app.stores.redis import create_redis_client
from serve_app.stores.run_log import RunLogStore

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
        self._trail = redact_logs(settings.observability)
        self._settings = settings
        self._metrics = create_metrics(exported=settings.observability.metrics)
        redis = create_redis_client(settings.redis, settings.redis.url, metrics=self._metrics)
        self._runs = RunEventLog(redis, settings.runs, RunMetrics(self._metrics))
        admin = settings.access.admin_key_env
        self._access = ApiKeyCache(redis, read_secret(admin) if admin else None, self._metrics)
        self._lines = RunLogStore(redis, settings.runs.steps_ttl_s)
        self._admission = AdmissionController(settings.admission, self._access, self._metrics, multi_tenant=bool(admin))
        self._parts = Services(
            agent=FailoverAgent(RemoteAgent(agent), self._runs),
            runs=self._runs,
            retriever=RemoteRetriever(retriever),
            tools=create_remote_tools(settings.tools, tools),
            run_logs=self._lines,
            feedback=FeedbackStore(redis, settings.feedback),
            metrics_page=MetricsPage(read_node_pages),
            keys=ApiKeyStore(redis, self._access),
            authenticator=Authenticator.of(self._access, settings.access) if admin else None,
            faults=FaultStore(redis) if settings.faults.enabled else None,
            limiter=RateLimiter(redis, settings.limits, self._access, self._metrics),
            admission=self._admission,
            metrics=self._metrics,
            model_name=settings.model.name,
        )
        self._background: list[asyncio.Task[None]] = []

    async def __serve_build_asgi_app__(self) -> FastAPI:
        told = (report_process_metrics(self._metrics), self._runs.go_on(), self._lines.write_forever(self._trail))
        going_on = (*told, self._access.refresh_forever(), self._admission.report_waiting())
        self._background = [asyncio.create_task(each, context=contextvars.Context()) for each in going_on]
        redactor = Redactor.from_patterns(self._settings.observability.redact)
        of_serve = (ClientDisconnectMiddleware, ServeSpanMiddleware, RequestIdEchoMiddleware)
        return create_api(
            self._parts,
            self._settings.http,
            self._settings.agent.turn_timeout_s,
            redactor,
            outer=[Middleware(each) for each in of_serve],
        )

    def check_health(self) -> None:
        if any(task.done() for task in self._background):
            raise Internal("the runs' logs, the keys or the process' own state are told no longer")
