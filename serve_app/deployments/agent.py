"""The process that runs turns."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from ray import serve

from serve_app.agent.toolbelt import Toolbelt
from serve_app.agent.turn import Turn
from serve_app.deployments.remote import RemoteRetriever, RemoteTools
from serve_app.errors import (
    AgentUnavailable,
    Internal,
    InvalidConfiguration,
    ModelUnavailable,
    Overloaded,
    StoreUnavailable,
)
from serve_app.llm.models import build
from serve_app.memory.window import Window
from serve_app.runs.feed import Feed
from serve_app.runs.lease import lease_of, session_held
from serve_app.stores.redis import connect, translated
from serve_app.values import Check, Failed, Failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ray.serve.handle import DeploymentHandle

    from serve_app.config import Settings
    from serve_app.values import Answer, ChatRequest, Context, Event, Session

logger = logging.getLogger(__name__)

PING_S = 1.0
"""Less than a readiness probe waits for this process, so that the probe is told what hangs."""


@serve.deployment
class Agent:
    """`ports.Agent`, as a deployment.

    A run is a task of this replica and not of the call that started it: a follower that leaves stops nothing.
    """

    def __init__(self, settings: Settings, retriever: DeploymentHandle, tools: DeploymentHandle) -> None:
        self._redis = connect(settings.redis, settings.redis.url)
        self._window = Window(self._redis, settings.memory)
        self._problem: str | None = None
        self._turn: Turn | None = None
        self._runs: set[asyncio.Task[Answer]] = set()
        self._max_runs = settings.agent.max_runs
        try:
            model = build(settings.model)
        except InvalidConfiguration as error:
            self._problem = str(error)
            logger.error("%s", self._problem)  # noqa: TRY400 - what and how to mend; a traceback adds nothing
            return
        self._turn = Turn(
            model=model,
            model_name=settings.model.name,
            belt=Toolbelt(RemoteTools(tools), RemoteRetriever(retriever), settings.knowledge, time.monotonic),
            window=self._window,
            session=partial(session_held, self._redis),
            settings=settings.agent,
        )

    async def turn(self, context: Context, request: ChatRequest) -> AsyncIterator[Event]:
        if self._turn is None:
            raise ModelUnavailable("The model is misconfigured")
        if len(self._runs) >= self._max_runs:
            raise Overloaded("Too many turns are running")
        feed = Feed()
        # Serve cancels whatever was called in the context of a call that is cancelled, so the run has one of its own.
        run = asyncio.create_task(self._turn.run(context, request, feed.emit), context=contextvars.Context())
        self._runs.add(run)
        run.add_done_callback(partial(self._finish, context, feed))
        async for event in feed.events():
            if request.stream or event.last:
                yield event

    def _finish(self, context: Context, feed: Feed, run: asyncio.Task[Answer]) -> None:
        self._runs.discard(run)
        error = AgentUnavailable("The run was stopped") if run.cancelled() else run.exception()
        if error is None:
            feed.emit(run.result())
            return
        failure = Failure.of(error, context.request_id)
        unexpected = error if failure.code == Internal.code else None
        logger.warning("run %s failed: %s", context.run_id, failure.code, exc_info=unexpected)
        feed.emit(Failed(error=failure))

    async def session(self, context: Context, limit: int) -> Session:
        return await self._window.session(context, limit)

    async def forget(self, context: Context) -> None:
        await self._window.forget(context, lease_of(context))

    async def checks(self) -> list[Check]:
        model = Check(name="model", ok=self._turn is not None, reason=self._problem)
        try:
            with translated():
                async with asyncio.timeout(PING_S):
                    await self._redis.ping()
        except StoreUnavailable as error:
            return [model, Check(name="redis", ok=False, reason=error.message)]
        return [model, Check(name="redis", ok=True)]

    async def __del__(self) -> None:
        """Serve awaits this within the replica's grace time: runs that nobody follows end, too."""
        if self._runs:
            await asyncio.wait(self._runs)
        await self._redis.aclose()
