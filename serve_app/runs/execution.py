"""What course does a run take in this process, from the wait for its turn to its last event?"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serve_app.errors import AgentUnavailable, Internal, SessionBusy, StoreUnavailable
from serve_app.observability.logs import log_context
from serve_app.observability.null import NULL_SPAN, NullTracer
from serve_app.resilience.deadline import elapsed_ms, local_deadline, remaining_s
from serve_app.runs.event_feed import EventFeed
from serve_app.runs.event_log import cancel_run
from serve_app.runs.run import NotOurs, Run
from serve_app.runs.store import Held, Waiting
from serve_app.values import Answer, Failed, Failure, RunEvent, RunStarted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from serve_app.config import RunSettings
    from serve_app.ports import Tracer, TurnSpan
    from serve_app.runs.event_writer import EventWriter
    from serve_app.runs.run import Stop
    from serve_app.runs.store import RunStore
    from serve_app.stores.redis_keys import RunKeys
    from serve_app.values import ChatRequest, Context, EventData

    Work = Callable[[Run], Awaitable[Answer]]

logger = logging.getLogger(__name__)

POLL_MIN_S, POLL_MAX_S = 0.02, 0.25


@dataclass(frozen=True, slots=True)
class RunServices:
    """What all runs of a process share."""

    redis: Redis
    registry: RunStore
    writer: EventWriter
    settings: RunSettings
    work: Work
    """Runs the turn of a run that has begun; its answer."""
    tracer: Tracer = field(default_factory=NullTracer)


@dataclass(slots=True)
class RunExecution:
    """One run in this process; whoever follows it reads `feed`, which ends early where the run goes on elsewhere."""

    context: Context
    request: ChatRequest
    after: int
    """The latest event that the asking follower has seen; -1 where nobody follows."""
    means: RunServices
    begun_at: float = field(default_factory=time.time)
    """Unix time in seconds at which this process had it."""
    feed: EventFeed = field(default_factory=EventFeed)
    run: Run | None = field(default=None, init=False)
    begun: float = field(default_factory=time.monotonic, init=False)
    span: TurnSpan = field(default=NULL_SPAN, init=False)
    _until: float = field(init=False)
    _stopped: Stop | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._until = local_deadline(self.context)

    async def go(self) -> None:
        """Run the run until it ends, or goes on elsewhere."""
        with log_context(self.context.ids):
            try:
                with self.means.tracer.start_turn(self.context, self.request) as self.span:
                    await self._go()
            except Exception as error:
                logger.exception("run_broken")
                with suppress(StoreUnavailable):
                    await self._break_off(error)
            finally:
                self.feed.close()

    async def _go(self) -> None:
        try:
            try:
                with self.span.start_child("memory", "memory.read"):  # with the session's turn, in one round trip
                    held = await self._turn()
            except StoreUnavailable as error:
                logger.warning("run_begins_without_redis", extra={"error": error.message})
                nothing = Held(0, max(self.after, 0), adoptions=0, remembered=None, registered_at=self.begun_at)
                await self._through(nothing, detached=True)
            else:
                if held:
                    await self._through(held)
        except SessionBusy as error:
            failed = Failed(error=Failure.of(error, self.context.request_id))
            self.span.set_outcome("failed", failed)
            with suppress(StoreUnavailable):
                registry = self.means.registry
                if await registry.end(self.context, "failed", failed, registry.owner):
                    self.means.writer.metrics.ended(failed, self.age_s)
            self._tell(failed, error)

    def stop(self, why: Stop) -> None:
        """Go on no longer in this process."""
        self._stopped = self._stopped or why
        if self.run:
            self.run.stop(why)

    @property
    def age_s(self) -> float:
        """Seconds since its registration, as far as it is known."""
        return self.run.age_s if self.run else time.time() - self.begun_at

    async def _turn(self) -> Held | None:
        """Wait for the session's turn; None where the run goes on elsewhere, or is over.

        Raises:
            SessionBusy: another run had it until this one's time ran out, or a second message is to be rejected.
            StoreUnavailable: Redis is away.
        """
        wait_s = POLL_MIN_S
        holder: RunKeys | None = None
        while self._stopped is None:
            begun = await self.means.writer.patience.call_until(self._begin, remaining_s(self._until))
            if isinstance(begun, Held):
                return begun
            if not isinstance(begun, Waiting):
                return None
            if begun.holder != holder:
                holder = begun.holder
                await self._second_message(begun)
            if remaining_s(self._until) <= wait_s:
                raise SessionBusy("Another turn of this session is still running")
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.5, POLL_MAX_S)
        if self._stopped == "handed over":
            await self.means.registry.hand_over(self.context)
        return None

    async def _begin(self) -> Held | Waiting | str:
        if self.means.writer.behind:
            raise StoreUnavailable("What was told while Redis was away is not yet written")
        return await self.means.registry.begin(self.context, self.request, self.after)

    async def _second_message(self, waiting: Waiting) -> None:
        """What the configuration wants of a message that finds its session busy; a run that has begun just waits."""
        policy = self.means.settings.second_message
        if waiting.last or policy == "wait":
            return
        if policy == "reject":
            raise SessionBusy("Another turn of this session is running")
        await cancel_run(self.means.redis, waiting.holder, self.means.settings.steps_ttl_s, self.means.writer.metrics)

    async def _through(self, held: Held, *, detached: bool = False) -> None:
        """Run the turn, and see the run to its end."""
        max_bytes = self.means.settings.max_bytes
        context = self.context.model_copy(update={"timeout_s": remaining_s(self._until)})
        self.run = run = Run(context, self.request, held, self.means.writer, max_bytes, self.feed, detached, self.span)
        self._counted(run)
        run.work = asyncio.create_task(self._work(run))
        if self._stopped:
            run.stop(self._stopped)
        await asyncio.wait({run.work})
        if run.stopped is None:
            await self._end(run, run.work)
        else:
            logger.info("run_stopped", extra={"why": run.stopped, "elapsed_ms": elapsed_ms(self.begun)})
            if not run.work.cancelled():
                run.work.exception()  # seen, and of no account: whoever stopped the run says how it ends
        if run.stopped == "ended":
            self.span.set_outcome("cancelled")
            self.means.writer.charge(run)
        with suppress(StoreUnavailable):
            if detached:
                return
            if run.stopped == "ended":
                await self.means.registry.release(self.context, held.epoch, run.exchange)
            elif run.stopped == "handed over":
                await self.means.registry.hand_over(self.context)

    def _counted(self, run: Run) -> None:
        """How the run came here: new, or from a process that died; one that was handed over has been counted."""
        if run.held.recovered:
            self.means.writer.metrics.recovered()
        elif not run.held.last and not run.held.adoptions:
            self.means.writer.metrics.begun(run.age_s)

    async def _work(self, run: Run) -> Answer:
        """The run's answer.

        Raises:
            ServeAppError: whatever the turn failed with.
        """
        if not run.held.last:
            logger.debug("run_begun", extra={"stream": run.request.stream, "detached": run.detached})
        elif not run.detached:
            logger.warning("run_taken_over", extra={"after": run.held.last, "adoptions": run.held.adoptions})
            self.span.set_attributes(recovered=True, events_before=run.held.last)
            run.recover(await self.means.writer.patience.call_until(lambda: self.means.registry.entries(self.context)))
        await run.record((RunStarted(run_id=self.context.run_id, recovered=run.held.last > 0), ""))
        return await self.means.work(run)

    async def _end(self, run: Run, work: asyncio.Task[Answer]) -> None:
        """Log how the run ended, in the run's log, and where that is not well in this process's too."""
        stopped = AgentUnavailable("The run was stopped") if work.cancelled() else work.exception()
        error = run.failure or stopped
        last = Failed(error=Failure.of(error, self.context.request_id)) if error else work.result()
        with suppress(NotOurs):
            with self.span.start_child("memory", "memory.write"):
                error = await self._logged(run, last) or error
            told = self.feed.last.data if self.feed.last else last  # without memory, where Redis was away
            if isinstance(told, Answer):
                self.span.set_outcome(told.status, told)
            else:
                self.span.set_outcome("failed", last)
            self._tell(told, error)

    async def _logged(self, run: Run, last: Answer | Failed) -> Exception | None:
        """Log the last event; where it cannot be, why: the run then ends with that, logged or at least told."""
        try:
            await run.end(last, last.status if isinstance(last, Answer) else "failed")
        except NotOurs:
            raise
        except Exception as error:
            logger.exception("run_end_not_logged")
            failed = Failed(error=Failure.of(error, self.context.request_id))
            if isinstance(last, Answer):
                await self._logged(run, failed)
            else:
                run.tell(last)
                with suppress(StoreUnavailable):
                    await self.means.registry.abandon(self.context, run.held.epoch)
            return error
        return None

    async def _break_off(self, error: Exception) -> None:
        """End a run that no part of this file could end, for its followers and in Redis."""
        failed = Failed(error=Failure.of(error, self.context.request_id))
        last = self.feed.last
        if last is None or not last.last:
            self.feed.add([RunEvent(id=max(self.after, last.id if last else 0) + 1, data=failed)])
        await self.means.registry.end(self.context, "failed", failed, self.means.registry.owner)
        if self.run and not self.run.detached:
            await self.means.registry.abandon(self.context, self.run.held.epoch)

    def _tell(self, last: EventData, error: BaseException | None) -> None:
        """The one line of the turn, by what its followers were told."""
        told: dict[str, Any] = {"elapsed_ms": elapsed_ms(self.begun)}
        if self.run and self.run.held.adoptions:
            told["adoptions"] = self.run.held.adoptions
        if isinstance(last, Failed):
            unexpected = error if last.error.code == Internal.code else None
            told |= {"status": "failed", "code": last.error.code}
            logger.warning("run_ended", extra=told, exc_info=unexpected)
        if isinstance(last, Answer):
            level = logging.WARNING if last.degraded else logging.INFO
            logger.log(level, "run_ended", extra={**told, **_summary(last)})


def _summary(answer: Answer) -> dict[str, Any]:
    return {
        "status": answer.status,
        "degraded": answer.degraded,
        "model": answer.model,
        **({"cached": True} if answer.cached else {}),
        "tools": [call.name for call in answer.tool_calls],
        "attempts": sum(call.attempts for call in answer.tool_calls),
        **answer.usage.model_dump(),
    }
