"""How does a follower stay with its run when the process that runs it dies?"""

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

AGAIN_MIN_S, AGAIN_MAX_S = 0.05, 1.0
"""Between two tries: for a while a caller may still be sent to the replica that is gone."""


SILENT_S = 3.0
"""For so long a replica may tell nothing before the log is looked at: by then a run of a dead one may be adopted."""


class FailoverAgent:
    """An Agent whose runs are followed to their end, whichever replicas die on the way; implements `ports.Agent`."""

    def __init__(self, agent: Agent, runs: RunEventLog) -> None:
        self._agent = agent
        self._runs = runs

    async def turn(self, context: Context, request: ChatRequest, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        again_s, given_up_at = AGAIN_MIN_S, local_deadline(context)
        while True:
            try:
                async with aclosing(self._here(context, request, after)) as events:
                    async for event in events:
                        after, again_s = event.id, AGAIN_MIN_S
                        yield event
                        if event.last:
                            return
                break
            except AgentUnavailable as error:
                if remaining_s(given_up_at) <= again_s:
                    raise
                logger.warning("replica_lost", extra={**context.ids, "after": after, "error": error.message})
            except Overloaded:
                if after == 0:
                    raise
                break  # it has begun, and somebody will adopt it
            await asyncio.sleep(again_s)
            again_s = min(2 * again_s, AGAIN_MAX_S)
        async with aclosing(self._elsewhere(context, after)) as events:
            async for event in events:
                if request.stream or event.last:
                    yield event

    async def _elsewhere(self, context: Context, after: int) -> AsyncGenerator[RunEvent, None]:
        try:
            async with aclosing(self._runs.events(context, context.run_id, after)) as events:
                async for event in events:
                    yield event
        except NotFound:
            raise AgentUnavailable("The replica is gone, and nothing is known of its run") from None

    async def _here(self, context: Context, request: ChatRequest, after: int) -> AsyncGenerator[RunEvent, None]:
        """What the replica tells, as long as it tells what the log has: nobody says of a frozen one that it is dead."""
        async with aclosing(self._agent.turn(context, request, after)) as events:
            while True:
                telling = asyncio.ensure_future(anext(events, None))
                asked = [telling]
                try:
                    await asyncio.wait(asked, timeout=SILENT_S)
                    if not telling.done():
                        asked.append(asyncio.ensure_future(self._news(context, after)))
                        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    told = telling.done()
                    await cancel_and_wait(*asked)
                if not told:
                    return
                event = telling.result()
                if event is None:
                    return
                after = event.id
                yield event

    async def _news(self, context: Context, after: int) -> None:
        """Wait until the log has more than the replica tells."""
        while True:
            with suppress(NotFound, StoreUnavailable):
                if (await self._runs.run(context, context.run_id)).last_event_id > after:
                    return
            await asyncio.sleep(SILENT_S)

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
