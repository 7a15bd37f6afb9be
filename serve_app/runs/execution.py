"""The execution of one run, from the wait for its session to its last event."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serve_app.errors import AgentUnavailable, Internal, SessionBusy, StoreUnavailable
from serve_app.observability.logs import log_context
from serve_app.observability.spans import NULL_SPAN, NullTracer
from serve_app.resilience.deadline import elapsed_ms, local_deadline, remaining_s
from serve_app.resilience.retry import poll
from serve_app.runs.event_log import cancel_run
from serve_app.runs.run import EventFeed, NotOurs, Run
from serve_app.runs.store import BusySession, RunLease
from serve_app.values import Answer, Failed, Failure, RunEvent, RunStarted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from serve_app.config import RunSettings
    from serve_app.ports import Tracer, TurnSpan
    from serve_app.runs.event_writer import EventWriter
    from serve_app.runs.run import StopReason
    from serve_app.runs.store import RunStore
    from serve_app.stores.redis_keys import RunKeys
    from serve_app.values import ChatRequest, Context, EventData

    TurnHandler = Callable[[Run], Awaitable[Answer]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunServices:
    """What all runs of a process share."""

    redis: Redis
    store: RunStore
    writer: EventWriter
    settings: RunSettings
    handle_turn: TurnHandler
    """Runs the turn of a run that has begun, and returns its answer."""
    tracer: Tracer = field(default_factory=NullTracer)


@dataclass(slots=True)
class RunExecution:
    """One run in this process.

    Followers read `feed`, which ends early where the run goes on elsewhere.
    """

    context: Context
    request: ChatRequest
    after: int
    """The latest event that the follower has seen; -1 where nobody follows."""
    services: RunServices
    begun_at: float = field(default_factory=time.time)
    """Unix time in seconds at which this process got it."""
    feed: EventFeed = field(default_factory=EventFeed)
    run: Run | None = field(default=None, init=False)
    begun: float = field(default_factory=time.monotonic, init=False)
    span: TurnSpan = field(default=NULL_SPAN, init=False)
    _deadline: float = field(init=False)
    _stopped: StopReason | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._deadline = local_deadline(self.context)

    @property
    def age_s(self) -> float:
        """Seconds since its registration, as far as that is known."""
        return self.run.age_s if self.run else time.time() - self.begun_at

    async def execute(self) -> None:
        """Run the run until it ends, or goes on elsewhere."""
        with log_context(self.context.ids):
            try:
                with self.services.tracer.start_turn(self.context, self.request) as self.span:
                    await self._execute()
            except Exception as error:
                logger.exception("run_broken")
                with suppress(StoreUnavailable):
                    await self._break_off(error)
            finally:
                self.feed.close()

    async def _execute(self) -> None:
        try:
            try:
                with self.span.start_child("memory", "memory.read"):  # with the session, in one round trip
                    lease = await self._acquire_session()
            except StoreUnavailable as error:
                logger.warning("run_begins_without_redis", extra={"error": error.message})
                last_event_id = max(self.after, 0)
                lease = RunLease(0, last_event_id, adoptions=0, memory_rows=None, registered_at=self.begun_at)
                await self._run_with_lease(lease, detached=True)
            else:
                if lease:
                    await self._run_with_lease(lease)
        except SessionBusy as error:
            failed = Failed(error=Failure.of(error, self.context.request_id))
            self.span.set_outcome("failed", failed)
            with suppress(StoreUnavailable):
                store = self.services.store
                if await store.end(self.context, "failed", failed, store.owner):
                    self.services.writer.metrics.count_end(failed, self.age_s)
            self._log_end(failed, error)

    def stop(self, reason: StopReason) -> None:
        """Stop the run in this process."""
        self._stopped = self._stopped or reason
        if self.run:
            self.run.stop(reason)

    async def _acquire_session(self) -> RunLease | None:
        """Wait for the session; None where the run goes on elsewhere, or is over.

        Raises:
            SessionBusy: another run had it until this one's time ran out, or a second message is to be rejected.
            StoreUnavailable: Redis is away.
        """
        availability = self.services.writer.availability
        holder: RunKeys | None = None

        async def attempt() -> RunLease | str | None:
            nonlocal holder
            if self._stopped:
                return "stopped"
            begun = await availability.call_until(self._begin, remaining_s(self._deadline))
            if isinstance(begun, BusySession):
                if begun.holder != holder:
                    holder = begun.holder
                    await self._apply_second_message_policy(begun)
                return None
            return begun

        begun = await poll(attempt, self._deadline)
        if begun is None:
            raise SessionBusy("Another turn of this session is still running")
        if self._stopped == "handed over" and begun == "stopped":
            await self.services.store.hand_over(self.context)
        return begun if isinstance(begun, RunLease) else None

    async def _begin(self) -> RunLease | BusySession | str:
        if self.services.writer.has_backlog:
            raise StoreUnavailable("Events from the time when Redis was away are not yet written")
        return await self.services.store.begin(self.context, self.request, self.after)

    async def _apply_second_message_policy(self, taken: BusySession) -> None:
        """Wait, reject or interrupt, as configured for a message to a busy session.

        A run that has begun waits.
        """
        settings = self.services.settings
        if taken.last_event_id or settings.second_message == "wait":
            return
        if settings.second_message == "reject":
            raise SessionBusy("Another turn of this session is running")
        await cancel_run(self.services.redis, taken.holder, settings.steps_ttl_s, self.services.writer.metrics)

    async def _run_with_lease(self, lease: RunLease, *, detached: bool = False) -> None:
        """Run the turn, and see the run to its end."""
        self.run = run = self._create_run(lease, detached=detached)
        self._count_begin(run)
        run.work = asyncio.create_task(self._run_turn(run))
        if self._stopped:
            run.stop(self._stopped)
        await asyncio.wait({run.work})
        if run.stopped is None:
            await self._end(run, run.work)
        else:
            logger.info("run_stopped", extra={"why": run.stopped, "elapsed_ms": elapsed_ms(self.begun)})
            if not run.work.cancelled():
                run.work.exception()  # retrieved, and ignored: whoever stopped the run decides how it ends
        if run.stopped == "ended":
            self.span.set_outcome("cancelled")
            self.services.writer.charge(run)
        with suppress(StoreUnavailable):
            if detached:
                return
            if run.stopped == "ended":
                await self.services.store.release(self.context, lease.epoch, run.exchange)
            elif run.stopped == "handed over":
                await self.services.store.hand_over(self.context)

    def _create_run(self, lease: RunLease, *, detached: bool) -> Run:
        writer = self.services.writer
        return Run(
            context=self.context.model_copy(update={"timeout_s": remaining_s(self._deadline)}),
            request=self.request,
            lease=lease,
            store=self.services.store,
            availability=writer.availability,
            metrics=writer.metrics,
            schedule_write=writer.schedule,
            max_bytes=self.services.settings.max_bytes,
            feed=self.feed,
            detached=detached,
            span=self.span,
        )

    def _count_begin(self, run: Run) -> None:
        """Count a new run, or one from a process that died.

        One that was handed over has been counted.
        """
        if run.lease.recovered:
            self.services.writer.metrics.count_adoption()
        elif run.lease.is_first:
            self.services.writer.metrics.count_begin(run.age_s)

    async def _run_turn(self, run: Run) -> Answer:
        """Return the run's answer, after the events of earlier owners are restored.

        Raises:
            ServeAppError: whatever the turn failed with.
        """
        last_event_id = run.lease.last_event_id
        if run.lease.is_first:
            logger.debug("run_begun", extra={"stream": run.request.stream, "detached": run.detached})
        elif not run.detached:
            logger.warning("run_adopted", extra={"after": last_event_id, "adoptions": run.lease.adoptions})
            self.span.set_attributes(recovered=True, events_before=last_event_id)
            run.restore(await run.availability.call_until(lambda: run.store.read_entries(self.context)))
        run.announce(RunStarted(run_id=self.context.run_id, recovered=not run.lease.is_first))
        return await self.services.handle_turn(run)

    async def _end(self, run: Run, work: asyncio.Task[Answer]) -> None:
        """Write the last event, and the line of the turn in the process log."""
        stopped = AgentUnavailable("The run was stopped") if work.cancelled() else work.exception()
        error = run.failure or stopped
        last = Failed(error=Failure.of(error, self.context.request_id)) if error else work.result()
        with suppress(NotOurs):
            with self.span.start_child("memory", "memory.write"):
                error = await self._log_last_event(run, last) or error
            published = self.feed.last.data if self.feed.last else last  # degraded by memory, where Redis was away
            if isinstance(published, Answer):
                self.span.set_outcome(published.status, published)
            else:
                self.span.set_outcome("failed", last)
            self._log_end(published, error)

    async def _log_last_event(self, run: Run, last: Answer | Failed) -> Exception | None:
        """Log the last event.

        Where that fails, log a failure instead, or at least publish it; return the error.
        """
        try:
            await run.end(last, last.status if isinstance(last, Answer) else "failed")
        except NotOurs:
            raise
        except Exception as error:
            logger.exception("run_end_not_logged")
            failed = Failed(error=Failure.of(error, self.context.request_id))
            if isinstance(last, Answer):
                await self._log_last_event(run, failed)
            else:
                run.publish_unlogged(last)
                with suppress(StoreUnavailable):
                    await self.services.store.abandon(self.context, run.lease.epoch)
            return error
        return None

    async def _break_off(self, error: Exception) -> None:
        """End a run that failed outside its turn, for its followers and in Redis."""
        failed = Failed(error=Failure.of(error, self.context.request_id))
        last = self.feed.last
        if last is None or not last.last:
            self.feed.add([RunEvent(id=max(self.after, last.id if last else 0) + 1, data=failed)])
        await self.services.store.end(self.context, "failed", failed, self.services.store.owner)
        if self.run and not self.run.detached:
            await self.services.store.abandon(self.context, self.run.lease.epoch)

    def _log_end(self, last: EventData, error: BaseException | None) -> None:
        """Write the one log line of the turn, by what its followers got."""
        fields: dict[str, Any] = {"elapsed_ms": elapsed_ms(self.begun)}
        if self.run and self.run.lease.adoptions:
            fields["adoptions"] = self.run.lease.adoptions
        if isinstance(last, Failed):
            unexpected = error if last.error.code == Internal.code else None
            fields |= {"status": "failed", "code": last.error.code}
            logger.warning("run_ended", extra=fields, exc_info=unexpected)
        if isinstance(last, Answer):
            level = logging.WARNING if last.degraded else logging.INFO
            logger.log(level, "run_ended", extra={**fields, **_summarize(last)})


def _summarize(answer: Answer) -> dict[str, Any]:
    return {
        "status": answer.status,
        "degraded": answer.degraded,
        "model": answer.model,
        **({"cached": True} if answer.cached else {}),
        "tools": [call.name for call in answer.tool_calls],
        "attempts": sum(call.attempts for call in answer.tool_calls),
        **answer.usage.model_dump(),
    }
