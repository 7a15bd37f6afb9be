"""Which runs does this process run, and what becomes of them when it ends?

A run is a task of this process and not of the call that began it: calls only follow it. The process says four times in
a lease's life that its runs are still here, looks for runs whose owner is gone, and hears which of its own a client has
cancelled.

A tenant may have `SHARE` times the slots that are free here (the dynamic threshold of Choudhury and Hahne, 1998),
however its runs came: one tenant alone gets seven eighths of them, each of two gets seven fifteenths. So whoever comes
anew is begun at once, whatever others have left behind.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from serve_app.errors import AgentUnavailable, Internal, Overloaded, StoreUnavailable
from serve_app.resilience.fair_queue import Throughput, dynamic_threshold
from serve_app.resilience.tasks import cancel_and_wait
from serve_app.runs.execution import RunExecution
from serve_app.runs.store import LIFE_MS
from serve_app.stores.redis_keys import RunKeys, control_stream
from serve_app.stores.stream_reader import StreamReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from serve_app.runs.execution import RunServices
    from serve_app.values import ChatRequest, Context, RunEvent

logger = logging.getLogger(__name__)

SHARE = 7
"""See above; what is kept free for others is an eighth, as where turns wait (`fair_queue.KEPT_FREE`)."""
FOLLOW_S = 10.0
"""How long a call follows a run: a replica that shuts down ends its calls before its runs."""
LOOK_EVERY_S = LIFE_MS / 4000
LISTEN_S = 1.0
HAND_OVER_S = 5.0
UNSEEN = -1
"""The latest event that is seen of a run that nobody follows."""


class RunWorker:
    """The runs of one process; made where an event loop runs."""

    def __init__(self, means: RunServices, max_runs: int) -> None:
        self._means = means
        self._max_runs = max_runs
        self._pace = Throughput()
        self._courses: dict[str, RunExecution] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._tail = StreamReader(means.redis, LISTEN_S)
        going_on = (means.writer.go_on(), self._tail.read_forever(), self._look(), self._listen())
        self._background = [asyncio.create_task(each, context=contextvars.Context()) for each in going_on]

    async def follow(self, context: Context, request: ChatRequest, after: int) -> AsyncIterator[RunEvent]:
        """The run's events after the event `after`, for as long as it is run here, and at most for `FOLLOW_S`.

        Raises:
            Overloaded: as many runs as may be, of this tenant or of all, are here already.
            AgentUnavailable: the process shuts down.
        """
        course = self._course(context, request, after)
        async for event in course.feed.events(after, FOLLOW_S):
            yield event

    def start(self, context: Context, request: ChatRequest) -> None:
        """Run the run, which nobody follows.

        Raises:
            Overloaded: as many runs as may be, of this tenant or of all, are here already.
            AgentUnavailable: the process shuts down.
        """
        self._course(context, request, UNSEEN)

    @property
    def running(self) -> int:
        """How many runs are here, those that wait for their turn included."""
        return len(self._courses)

    def check(self) -> None:
        """See that runs are written, renewed and adopted.

        Raises:
            Internal: one of the tasks that do so has ended.
        """
        for task in self._background:
            if task.done():
                raise Internal("the runs of this process are looked after no longer")

    async def close(self, grace_s: float) -> None:
        """Take no more runs, wait for those that are here, and hand over what has not ended after `grace_s`."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for course in list(self._courses.values()):
            course.stop("handed over")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=HAND_OVER_S)
        await cancel_and_wait(*self._background)

    def _course(self, context: Context, request: ChatRequest, after: int) -> RunExecution:
        course = self._courses.get(context.run_id)
        if course:
            return course
        if self._closing:
            raise AgentUnavailable("The replica shuts down")
        if self._held[context.tenant] >= self._most:
            raise Overloaded("Too many turns are running", self._pace.retry_after_s(0, time.monotonic()))
        course = self._courses[context.run_id] = RunExecution(context, request, after, self._means)
        # Serve cancels whatever was called in the context of a call that is cancelled, so the run has one of its own.
        task = asyncio.create_task(self._go(course), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return course

    @property
    def _held(self) -> Counter[str]:
        """How many runs each tenant has here."""
        return Counter(course.context.tenant for course in self._courses.values())

    @property
    def _most(self) -> int:
        """A tenant that has so many runs here, or more, gets no other one now."""
        return dynamic_threshold(SHARE, self._max_runs - len(self._courses))

    async def _go(self, course: RunExecution) -> None:
        try:
            await course.go()
        finally:
            del self._courses[course.context.run_id]
            self._pace.record_end(time.monotonic())

    async def _look(self) -> None:
        """Renew what is here, adopt what has lapsed; while Redis was away all did, and is for its owners to renew."""
        adopt_from = 0.0
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                self._means.writer.metrics.running([course.age_s for course in self._courses.values()])
                await self._renew()
                if time.monotonic() >= adopt_from and not self._closing:
                    await self._adopt()
            except StoreUnavailable as error:
                logger.warning("runs_not_renewed", extra={"error": error.message})
                adopt_from = time.monotonic() + LIFE_MS / 1000
            except Exception:
                logger.exception("runs_not_looked_after")

    async def _renew(self) -> None:
        courses = [course.run for course in self._courses.values() if course.run]
        runs = [run for run in courses if not run.stopped and not run.detached]
        if not runs:
            return
        held = [(run.context, run.held.epoch) for run in runs]
        kept = await self._means.writer.patience.call_once(lambda: self._means.registry.renew(held))
        for run, each in zip(runs, kept, strict=True):
            if each == "failed":  # its own next write says so to its turn
                run.fail(Internal("The run cannot be renewed"))
            elif each != "kept":
                run.lost(each)

    async def _adopt(self) -> None:
        full = [tenant for tenant, runs in self._held.items() if runs >= self._most]
        for context, request in await self._means.writer.patience.call_once(lambda: self._means.registry.lapsed(full)):
            try:
                with suppress(Overloaded, AgentUnavailable):
                    self._course(context, request, UNSEEN)
            except Exception:
                logger.exception("run_not_adopted", extra=context.ids)

    async def _listen(self) -> None:
        """Stop what a client has cancelled."""
        async for entry, fields in self._tail.follow_forever(control_stream(self._means.registry.owner)):
            try:
                self._cancel(fields["run"])
            except Exception:
                logger.exception("control_message_unreadable", extra={"entry": entry})

    def _cancel(self, member: str) -> None:
        course = self._courses.get(RunKeys.of(member).run_id)
        if course and course.context.tenant == RunKeys.of(member).tenant:
            course.stop("ended")
