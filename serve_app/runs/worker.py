"""The run worker: executes runs, sends heartbeats, adopts runs of dead processes.

A run is a task of this process and not of the call that began it: calls only follow it. Four times in the life of a
lease the worker sends a heartbeat for its runs and looks for runs whose owner is dead. It also listens for its own runs
that a client has cancelled.

Runs are shared among tenants by a dynamic threshold: one tenant alone gets seven eighths of the slots, each of two gets
seven fifteenths. So the run of a new tenant begins at once, whatever backlog others have, and however runs came here.
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
from serve_app.runs.store import LEASE_MS
from serve_app.stores.redis_keys import RunKeys, control_stream
from serve_app.stores.stream_reader import StreamReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from serve_app.runs.execution import RunServices
    from serve_app.values import ChatRequest, Context, RunEvent

logger = logging.getLogger(__name__)

TENANT_SHARE = 7
"""For the dynamic threshold: an eighth of the slots is free for others, as in the fair queue."""
FOLLOW_S = 10.0
"""How long a call follows a run: a replica that shuts down ends its calls before its runs."""
HEARTBEAT_S = LEASE_MS / 4000
LISTEN_S = 1.0
HAND_OVER_S = 5.0
NO_FOLLOWER = -1
"""In the place of the latest event that a follower has seen."""


class RunWorker:
    """The runs of one process; made where an event loop runs."""

    def __init__(self, services: RunServices, max_runs: int) -> None:
        self._services = services
        self._max_runs = max_runs
        self._throughput = Throughput()
        self._executions: dict[str, RunExecution] = {}
        self._runs_by_tenant = Counter[str]()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._reader = StreamReader(services.redis, LISTEN_S)
        loops = (services.writer.write_forever(), self._reader.read_forever(), self._supervise(), self._listen())
        self._background = [asyncio.create_task(each, context=contextvars.Context()) for each in loops]

    async def follow(self, context: Context, request: ChatRequest, after: int) -> AsyncIterator[RunEvent]:
        """Yield the run's events after the event `after`.

        It ends with the last event, where the run goes on elsewhere, or after `FOLLOW_S`: the log has the rest. Where
        the log cannot have it, because Redis is away, it goes on.

        Raises:
            Overloaded: as many runs as may be, of this tenant or of all, are here already.
            AgentUnavailable: the process shuts down.
        """
        execution = self._get_or_start(context, request, after)
        while True:
            async for event in execution.feed.events(after, FOLLOW_S):
                after = event.id
                yield event
            if execution.feed.closed or self._is_logged(execution):
                return

    async def last_event(self, context: Context, request: ChatRequest, after: int) -> RunEvent | None:
        """Wait for the run's last event, for as long as `follow` would.

        Returns None where the run goes on elsewhere, or for long: its log has the rest.

        Raises:
            Overloaded: as many runs as may be, of this tenant or of all, are here already.
            AgentUnavailable: the process shuts down.
        """
        execution = self._get_or_start(context, request, after)
        while True:
            last = await execution.feed.last_event(FOLLOW_S)
            if last or execution.feed.closed or self._is_logged(execution):
                return last

    def start(self, context: Context, request: ChatRequest) -> None:
        """Start the run, which nobody follows.

        Raises:
            Overloaded: as many runs as may be, of this tenant or of all, are here already.
            AgentUnavailable: the process shuts down.
        """
        self._get_or_start(context, request, NO_FOLLOWER)

    @property
    def running(self) -> int:
        """The number of runs here, those that wait for their session included."""
        return len(self._executions)

    def check(self) -> None:
        """Check that runs are written, renewed and adopted.

        Raises:
            Internal: one of the background tasks has ended.
        """
        for task in self._background:
            if task.done():
                raise Internal("A background task of the run worker has ended")

    async def close(self, grace_s: float) -> None:
        """Take no more runs, wait `grace_s` for those here, hand over the others."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for execution in list(self._executions.values()):
            execution.stop("handed over")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=HAND_OVER_S)
        await cancel_and_wait(*self._background)

    def _get_or_start(self, context: Context, request: ChatRequest, after: int) -> RunExecution:
        execution = self._executions.get(context.run_id)
        if execution:
            return execution
        if self._closing:
            raise AgentUnavailable("The replica shuts down")
        if self._runs_by_tenant[context.tenant] >= self._max_runs_of_tenant:
            wait_s = self._throughput.retry_after_s(0, time.monotonic())
            raise Overloaded("Too many turns are running", wait_s, "agents_full")
        execution = self._executions[context.run_id] = RunExecution(context, request, after, self._services)
        self._runs_by_tenant[context.tenant] += 1
        # Serve cancels whatever was started in the context of a call that is cancelled, so the run has one of its own.
        task = asyncio.create_task(self._execute(execution), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return execution

    @property
    def _max_runs_of_tenant(self) -> int:
        """A tenant that has so many runs here, or more, gets no other one now."""
        return dynamic_threshold(TENANT_SHARE, self._max_runs - len(self._executions))

    def _is_logged(self, execution: RunExecution) -> bool:
        """Whether followers find the run's events in its log."""
        detached = execution.run is not None and execution.run.detached
        return not (detached or self._services.writer.availability.is_failing)

    async def _execute(self, execution: RunExecution) -> None:
        try:
            await execution.execute()
        finally:
            del self._executions[execution.context.run_id]
            self._runs_by_tenant -= Counter({execution.context.tenant: 1})
            self._throughput.record_end(time.monotonic())

    async def _supervise(self) -> None:
        """Send heartbeats and adopt lapsed runs, until cancelled.

        While Redis was away all leases expired, so nothing is adopted until their owners had time to renew them.
        """
        adopt_from = 0.0
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            try:
                self._services.writer.metrics.set_running([each.age_s for each in self._executions.values()])
                await self._renew_leases()
                if time.monotonic() >= adopt_from and not self._closing:
                    await self._adopt_lapsed()
            except StoreUnavailable as error:
                logger.warning("runs_not_renewed", extra={"error": error.message})
                adopt_from = time.monotonic() + LEASE_MS / 1000
            except Exception:
                logger.exception("runs_not_supervised")

    async def _renew_leases(self) -> None:
        begun = [execution.run for execution in self._executions.values() if execution.run]
        runs = [run for run in begun if not run.stopped and not run.detached]
        if not runs:
            return
        leases = [(run.context, run.lease.epoch) for run in runs]
        store, availability = self._services.store, self._services.writer.availability
        results = await availability.call_once(lambda: store.renew(leases))
        for run, result in zip(runs, results, strict=True):
            if result == "failed":  # the run's next write tells its turn
                run.fail(Internal("The run cannot be renewed"))
            elif result != "ok":
                run.lose(result)

    async def _adopt_lapsed(self) -> None:
        full = [tenant for tenant, runs in self._runs_by_tenant.items() if runs >= self._max_runs_of_tenant]
        store, availability = self._services.store, self._services.writer.availability
        for context, request in await availability.call_once(lambda: store.find_lapsed(full)):
            try:
                with suppress(Overloaded, AgentUnavailable):
                    self._get_or_start(context, request, NO_FOLLOWER)
            except Exception:
                logger.exception("run_not_adopted", extra=context.ids)

    async def _listen(self) -> None:
        """Stop the runs that clients have cancelled, until cancelled itself."""
        async for entry, fields in self._reader.follow_forever(control_stream(self._services.store.owner)):
            try:
                self._stop_cancelled(fields["run"])
            except Exception:
                logger.exception("control_message_unreadable", extra={"entry": entry})

    def _stop_cancelled(self, member: str) -> None:
        keys = RunKeys.of(member)
        execution = self._executions.get(keys.run_id)
        if execution and execution.context.tenant == keys.tenant:
            execution.stop("ended")
