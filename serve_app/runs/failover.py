"""Failover: a follower stays with its run when the replica dies or freezes."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from serve_app.errors import AgentUnavailable, NotFound, Overloaded, StoreUnavailable
from serve_app.resilience.deadline import local_deadline, remaining_s
from serve_app.resilience.tasks import cancel_and_wait

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from serve_app.ports import Agent
    from serve_app.runs.event_log import RunEventLog
    from serve_app.values import ChatRequest, Context, DependencyCheck, RunEvent, Session, SessionSizes

logger = logging.getLogger(__name__)

RETRY_MIN_S, RETRY_MAX_S = 0.05, 1.0
"""Between two attempts: for a while Serve may still route to the replica that is gone."""
SILENCE_S = 3.0
"""A replica may send nothing for so long before the log is read: by then the run of a dead one may be adopted."""


class FailoverAgent:
    """`ports.Agent` that follows each run to its end, whichever replicas die on the way."""

    def __init__(self, agent: Agent, log: RunEventLog) -> None:
        self._agent = agent
        self._log = log

    async def turn(self, context: Context, request: ChatRequest, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        pause_s, deadline = RETRY_MIN_S, local_deadline(context)
        while True:
            try:
                async with aclosing(self._follow_replica(context, request, after)) as events:
                    async for event in events:
                        after, pause_s = event.id, RETRY_MIN_S
                        yield event
                        if event.last:
                            return
                break
            except AgentUnavailable as error:
                if remaining_s(deadline) <= pause_s:
                    raise
                logger.warning("replica_lost", extra={**context.ids, "after": after, "error": error.message})
            except Overloaded:
                if after == 0:
                    raise
                break  # it has begun, and another process will adopt it
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)
        async with aclosing(self._follow_log(context, after)) as events:
            async for event in events:
                if request.stream or event.last:
                    yield event

    async def _follow_log(self, context: Context, after: int) -> AsyncGenerator[RunEvent, None]:
        try:
            async with aclosing(self._log.events(context, context.run_id, after)) as events:
                async for event in events:
                    yield event
        except NotFound:
            raise AgentUnavailable("The replica is gone, and nothing is known of its run") from None

    async def _follow_replica(
        self, context: Context, request: ChatRequest, after: int
    ) -> AsyncGenerator[RunEvent, None]:
        """Yield the events from the replica, until the log is ahead of it.

        A frozen process looks alive to Ray.
        """
        async with aclosing(self._agent.turn(context, request, after)) as events:
            while True:
                next_event = asyncio.ensure_future(anext(events, None))
                waited_for = [next_event]
                try:
                    await asyncio.wait(waited_for, timeout=SILENCE_S)
                    if not next_event.done():
                        waited_for.append(asyncio.ensure_future(self._wait_for_log(context, after)))
                        await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    arrived = next_event.done()
                    await cancel_and_wait(*waited_for)
                if not arrived:
                    return
                event = next_event.result()
                if event is None:
                    return
                after = event.id
                yield event

    async def _wait_for_log(self, context: Context, after: int) -> None:
        """Wait until the log has an event that the replica has not sent."""
        while True:
            with suppress(NotFound, StoreUnavailable):
                if (await self._log.run(context, context.run_id)).last_event_id > after:
                    return
            await asyncio.sleep(SILENCE_S)

    async def start(self, context: Context, request: ChatRequest) -> None:
        await self._agent.start(context, request)

    async def session(self, context: Context, limit: int) -> Session:
        return await self._agent.session(context, limit)

    async def sizes(self, context: Context, limit: int) -> SessionSizes:
        return await self._agent.sizes(context, limit)

    async def forget(self, context: Context) -> None:
        await self._agent.forget(context)

    async def checks(self) -> list[DependencyCheck]:
        return await self._agent.checks()
