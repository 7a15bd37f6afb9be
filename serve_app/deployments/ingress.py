"""The process that speaks HTTP; it imports neither LangChain nor pymilvus."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from ray import serve
from starlette.middleware import Middleware

from serve_app.config import read_secret
from serve_app.deployments.ray_adapter import ClientDisconnectMiddleware, ServeSpanMiddleware
from serve_app.deployments.remote_calls import RemoteAgent, RemoteRetriever, create_remote_tools
from serve_app.deployments.replica_metrics import read_node_pages
from serve_app.deployments.runtime import ReplicaRuntime
from serve_app.http.admission import AdmissionController
from serve_app.http.app import create_api
from serve_app.http.auth import Authenticator
from serve_app.http.dependencies import Services
from serve_app.http.middleware.headers import RequestIdEchoMiddleware
from serve_app.observability.metrics_page import MetricsPage
from serve_app.observability.redaction import Redactor
from serve_app.runs.event_log import RunEventLog
from serve_app.runs.failover import FailoverAgent
from serve_app.runs.feedback import FeedbackStore
from serve_app.runs.metrics import RunMetrics
from serve_app.stores.api_keys import ApiKeyCache, ApiKeyStore
from serve_app.stores.capacity_store import CapacityStore
from serve_app.stores.fault_store import FaultStore
from serve_app.stores.log_store import RequestLogStore, RunLogStore
from serve_app.stores.rate_limiter import RateLimiter

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
        self._runtime = runtime = ReplicaRuntime(settings.observability)
        metrics, availability = runtime.metrics, runtime.redis_availability
        redis = runtime.open_redis(settings.redis)
        self._runs = RunEventLog(redis, settings.runs, RunMetrics(metrics), availability)
        admin = settings.access.admin_key_env
        self._access = ApiKeyCache(redis, read_secret(admin) if admin else None, metrics, availability)
        self._run_logs = RunLogStore(redis, settings.runs.steps_ttl_s)
        self._requests = RequestLogStore(redis, self._run_logs, settings.runs.steps_ttl_s)
        self._capacity = CapacityStore(redis, uuid4().hex)
        self._admission = AdmissionController(settings.admission, self._access, metrics, multi_tenant=bool(admin))
        self._services = Services(
            agent=FailoverAgent(RemoteAgent(agent), self._runs),
            runs=self._runs,
            retriever=RemoteRetriever(retriever),
            tools=create_remote_tools(settings.tools, tools),
            run_logs=self._run_logs,
            request_logs=self._requests,
            feedback=FeedbackStore(redis, settings.feedback),
            metrics_page=MetricsPage(read_node_pages),
            keys=ApiKeyStore(redis, self._access),
            authenticator=Authenticator.of(self._access, settings.access) if admin else None,
            faults=FaultStore(redis, availability) if settings.faults.enabled else None,
            limiter=RateLimiter(redis, settings.limits, self._access, metrics, availability),
            admission=self._admission,
            metrics=metrics,
            model_name=settings.model.name,
        )

    async def __serve_build_asgi_app__(self) -> FastAPI:
        runtime = self._runtime
        runtime.start_process_metrics()
        runtime.start_task("run_events", self._runs.read_forever())
        runtime.start_task("run_log", self._run_logs.write_forever(runtime.run_log_handler))
        runtime.start_task("request_log", self._requests.write_forever())
        runtime.start_task("api_keys", self._access.refresh_forever())
        runtime.start_task("waiting_turns", self._admission.report_waiting())
        runtime.start_task("capacity", self._admission.follow_capacity(self._capacity, runtime.loop_load))
        redactor = Redactor.from_patterns(self._settings.observability.redact)
        of_serve = (ClientDisconnectMiddleware, ServeSpanMiddleware, RequestIdEchoMiddleware)
        return create_api(
            self._services,
            self._settings.http,
            self._settings.agent.turn_timeout_s,
            redactor,
            outer=[Middleware(each) for each in of_serve],
        )

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Report how much the event loop works, by which `autoscaling.scale_by_load` decides."""
        return {"worked": self._runtime.loop_load.worked}

    def check_health(self) -> None:
        self._runtime.check_tasks()

    async def __del__(self) -> None:
        await self._runtime.close()
