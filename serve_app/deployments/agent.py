"""The Agent deployment: the process that runs turns."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from ray import serve

from serve_app.agent.answer_cache import AnswerCache
from serve_app.agent.tool_dispatch import ToolDispatcher
from serve_app.agent.turn import Turn
from serve_app.cache import SharedAnswers
from serve_app.deployments.remote_calls import RemoteRetriever, create_remote_tools
from serve_app.deployments.runtime import CLOSE_TIMEOUT_S, ReplicaRuntime
from serve_app.errors import InvalidConfiguration, ModelUnavailable, StoreUnavailable
from serve_app.llm.models import build_model
from serve_app.memory import ConversationMemory, largest_sessions
from serve_app.observability.metric_catalogue import DROPPED_SPANS
from serve_app.observability.redaction import Redactor
from serve_app.observability.tracing import create_tracer
from serve_app.runs.event_log import cancel_run
from serve_app.runs.event_writer import EventWriter
from serve_app.runs.execution import RunServices
from serve_app.runs.metrics import RunMetrics
from serve_app.runs.store import RunStore
from serve_app.runs.worker import HAND_OVER_S, RunWorker
from serve_app.stores.capacity_store import REPORT_EVERY_S, AgentReport, CapacityStore
from serve_app.stores.log_store import RunLogStore
from serve_app.stores.rate_limiter import TokenMeter
from serve_app.stores.store_checks import RedisHealth
from serve_app.values import DependencyCheck

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ray.serve.handle import DeploymentHandle

    from serve_app.config import Settings
    from serve_app.llm.fallback import FallbackModel
    from serve_app.values import ChatRequest, Context, RunEvent, Session, SessionSizes

logger = logging.getLogger(__name__)

TOOLS_START_S = 20.0
"""For the first replica of Tools to start, which takes ten seconds beside all others."""


@serve.deployment
class Agent:
    """`ports.Agent`, as a deployment."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: Settings, retriever: DeploymentHandle, tools: dict[str | None, DeploymentHandle]
    ) -> None:
        self._settings = settings
        self._runtime = runtime = ReplicaRuntime(settings.observability)
        metrics = runtime.metrics
        self._redis = runtime.open_redis(settings.redis)
        run_log = RunLogStore(self._redis, settings.runs.steps_ttl_s)
        runtime.start_task("run_log", run_log.write_forever(runtime.run_log_handler))
        self._redis_health = RedisHealth(self._redis)
        self._memory = ConversationMemory(self._redis, settings.memory, metrics)
        self._run_metrics = RunMetrics(metrics, frozenset(settings.tools.by_name))
        runtime.start_process_metrics(self._breakers)
        self._problem: str | None = None
        self._worker: RunWorker | None = None
        self._model: FallbackModel | None = None
        try:
            self._model = model = build_model(settings.model, metrics)
        except InvalidConfiguration as error:
            self._problem = str(error)
            logger.error("model_misconfigured", extra={"problem": self._problem})  # noqa: TRY400 - it says how to fix it
            return
        dispatcher = ToolDispatcher(
            create_remote_tools(settings.tools, tools),
            RemoteRetriever(retriever),
            settings.knowledge,
            time.monotonic,
            metrics,
        )
        await dispatcher.prepare(TOOLS_START_S)
        self._worker = self._start_worker(model, dispatcher)

    def _start_worker(self, model: FallbackModel, dispatcher: ToolDispatcher) -> RunWorker:
        """Start the worker; it, the tracer and the answer cache are closed in this order."""
        settings, runtime, owner = self._settings, self._runtime, uuid4().hex
        metrics, availability = runtime.metrics, runtime.redis_availability
        cache: AnswerCache | None = None
        if settings.cache.ttl_s:
            answers = SharedAnswers(self._redis, owner, settings.cache.ttl_s, availability)
            runtime.on_close("shared_answers", answers.close)
            cache = AnswerCache.create(settings, answers, dispatcher, metrics)
        turn = Turn(
            model=model,
            model_name=settings.model.name,
            tools=dispatcher,
            memory=self._memory,
            settings=settings.agent,
            cache=cache,
            takes_tools=settings.model.tools,
        )
        store = RunStore(self._redis, settings.runs, self._memory, owner)
        tracer = create_tracer(
            settings.observability,
            Redactor.from_patterns(settings.observability.redact),
            count_dropped=lambda sink, spans: metrics.count(DROPPED_SPANS, spans, sink=sink),
        )
        runtime.on_close("tracer", tracer.shutdown)
        writer = EventWriter(store, availability, self._run_metrics, TokenMeter(self._redis, metrics))
        services = RunServices(self._redis, store, writer, settings.runs, turn.run, tracer)
        worker = RunWorker(services, settings.agent.max_runs)
        grace_s = settings.runs.grace_s
        runtime.on_close("runs", partial(worker.close, grace_s), grace_s + HAND_OVER_S + CLOSE_TIMEOUT_S)
        capacity = CapacityStore(self._redis, owner)
        runtime.on_close("capacity", capacity.withdraw_agent)
        runtime.start_task("capacity", self._report_capacity(capacity))
        return worker

    async def _report_capacity(self, store: CapacityStore) -> None:
        """Report once a second what this replica may hold, for ever."""
        while True:
            try:
                await store.report_agent(AgentReport(self._settings.agent.max_runs, self._runtime.loop_load.busy))
            except StoreUnavailable as error:
                logger.debug("capacity_not_reported", extra={"error": error.message})
            except Exception:
                logger.exception("capacity_not_reported")
            await asyncio.sleep(REPORT_EVERY_S)

    async def turn(self, context: Context, request: ChatRequest, after: int) -> AsyncIterator[RunEvent]:
        async for event in self._get_worker().follow(context, request, after):
            yield event

    async def last_event(self, context: Context, request: ChatRequest, after: int) -> RunEvent | None:
        """Return the run's last event, or None: see `RunWorker.last_event`."""
        return await self._get_worker().last_event(context, request, after)

    async def start(self, context: Context, request: ChatRequest) -> None:
        self._get_worker().start(context, request)

    async def session(self, context: Context, limit: int) -> Session:
        return await self._memory.session(context, limit)

    async def sizes(self, context: Context, limit: int) -> SessionSizes:
        return await largest_sessions(self._redis, context, limit)

    async def forget(self, context: Context) -> None:
        holder = await self._memory.forget(context)
        if holder:
            await cancel_run(self._redis, holder, self._settings.runs.steps_ttl_s, self._run_metrics)

    async def checks(self) -> list[DependencyCheck]:
        models = self._model.checks() if self._model else []
        model = [DependencyCheck(name="model", ok=self._model is not None, reason=self._problem), *models]
        return [*model, *await self._redis_health.checks()]

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Report the runs and how much the event loop works, by which `autoscaling.scale_by_load` decides.

        Calls only follow runs, and are fewer.
        """
        return {"runs": float(self._worker.running if self._worker else 0), "worked": self._runtime.loop_load.worked}

    def check_health(self) -> None:
        self._runtime.check_tasks()
        if self._worker:
            self._worker.check()

    async def __del__(self) -> None:
        """End the runs, or hand them over.

        Serve awaits this within the replica's grace time, after the calls.
        """
        await self._runtime.close()

    def _breakers(self) -> dict[str, str]:
        return {name: circuit.state for name, circuit in self._model.circuits.items()} if self._model else {}

    def _get_worker(self) -> RunWorker:
        if self._worker is None:
            raise ModelUnavailable("The model is misconfigured")
        return self._worker
