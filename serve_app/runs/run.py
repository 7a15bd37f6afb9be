"""A run in the process that executes it: unwritten events, and a feed for followers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from serve_app.errors import Internal, RunTooLarge, ServeAppError, StoreUnavailable
from serve_app.observability.spans import NULL_SPAN
from serve_app.resilience.deadline import local_deadline, remaining_s
from serve_app.runs.event_log import LogEntry, merge_text
from serve_app.runs.store import RunAppend
from serve_app.values import RunEvent, Token, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from serve_app.ports import TurnSpan
    from serve_app.runs.metrics import RunMetrics
    from serve_app.runs.store import RunLease, RunStore
    from serve_app.stores.availability import RedisAvailability
    from serve_app.values import Answer, ChatRequest, Context, EventData, Failed, Reasoning, RunStarted, RunStatus

MAX_ADOPTIONS = 3
"""A run that so many processes have died over is not tried again: it may be what kills them."""

NO_USAGE = Usage()

StopReason = Literal["superseded", "ended", "handed over"]
"""Why a run stops in this process: another one has it, a client ended it, or this process shuts down."""


class NotOurs(Internal):
    """The process does not have the run any more. No client sees this error."""


@dataclass(slots=True)
class Run:
    """One run, from the moment that it has its session."""

    context: Context
    request: ChatRequest
    lease: RunLease
    store: RunStore
    availability: RedisAvailability
    metrics: RunMetrics
    schedule_write: Callable[[Run], None]
    """Has the event writer write what is pending, soon; never waits."""
    max_bytes: int
    feed: EventFeed
    detached: bool = False
    """Redis was away when the run began: nothing is remembered or logged, and no effect can be journaled."""
    span: TurnSpan = NULL_SPAN
    """The root span of the turn."""
    entries: Sequence[LogEntry] = field(default=(), init=False)
    """What earlier owners have logged."""
    stopped: StopReason | None = None
    failure: ServeAppError | None = field(default=None, init=False)
    """Why nothing more of its work can be logged; the run ends with it."""
    work: asyncio.Task[Answer] | None = None
    ended_at: float | None = field(default=None, init=False)
    """Unix time in seconds of its last event."""
    usage: Usage = field(default=NO_USAGE, init=False)
    """Of its model calls, those of earlier owners included as far as they are known."""
    exchange: str = field(default="", init=False)
    """What memory keeps of this run, however it ends from now on."""
    _has_text: bool = field(default=False, init=False)
    _last_event_id: int = field(init=False)
    _bytes: int = field(default=0, init=False)
    _pending: list[tuple[EventData, str]] = field(default_factory=list, init=False)
    _status: RunStatus | Literal[""] = field(default="", init=False)
    _written: asyncio.Future[None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._last_event_id = self.lease.last_event_id

    def restore(self, entries: Sequence[LogEntry]) -> None:
        """Go on from what earlier owners have logged."""
        self.entries = entries
        self._has_text = any(isinstance(each.event.data, Token) for each in entries)
        self._bytes = sum(each.size for each in entries)
        self.feed.add(each.event for each in entries)

    @property
    def age_s(self) -> float:
        """Seconds from its registration until now, or until it ended."""
        return (self.ended_at or time.time()) - self.lease.registered_at

    @property
    def abandoned(self) -> bool:
        """Whether too many processes have died over the run."""
        return self.lease.adoptions > MAX_ADOPTIONS

    def stream(self, piece: Token | Reasoning) -> None:
        """Send a piece of text, soon and together with its neighbours."""
        if self.failure:
            return
        if isinstance(piece, Token) and not self._has_text:
            self._has_text = True
            self.metrics.count_first_token(self.age_s)
        self._send_soon(piece)

    def announce(self, started: RunStarted) -> None:
        """Send the first event, soon or with the first step: nothing depends on it."""
        self._send_soon(started)

    def _send_soon(self, data: EventData) -> None:
        self._pending.append((data, ""))
        self.schedule_write(self)

    async def record(self, *steps: tuple[EventData, str]) -> None:
        """Log steps, each with the state that a process needs to go on after it.

        They are in Redis when this returns. While Redis is away for long, followers get them first and Redis later.

        Raises:
            NotOurs: another process has the run, or it was ended.
            RunTooLarge: the log would grow over its limit.
        """
        if self._bytes + sum(len(state) for _, state in steps) > self.max_bytes:
            raise RunTooLarge("The turn takes up more than it may; ask for less at once")
        self._pending.extend(steps)
        await self._flush()

    async def end(self, last: Answer | Failed, status: RunStatus) -> None:
        """Log the last event, free the session, and add the exchange to the memory.

        Raises:
            NotOurs: another process has the run, or it was ended.
            Internal: it cannot be written; a failure may still be.
        """
        self.failure = None
        self._pending.append((last, ""))
        self._status = status
        self.ended_at = time.time()
        await self._flush()

    async def journal_effect(self, step: int, index: int) -> bool:
        """Record that an effect is about to be made.

        Returns False where an earlier owner recorded it before it died.

        Raises:
            NotOurs: another process has the run, or it was ended.
            StoreUnavailable: Redis does not answer.
        """
        if self.detached:
            raise StoreUnavailable("Redis did not answer when the run began")
        call = f"effect:{step}:{index}"
        result = await self.availability.call_until(
            lambda: self.store.reserve(self.context, self.lease.epoch, call), remaining_s(local_deadline(self.context))
        )
        if result in {"superseded", "ended"}:
            raise self.lose(result)
        if self.stopped:  # the cancellation may have been lost in the client
            raise self.lose(self.stopped)
        return bool(result == "ok")

    def stop(self, reason: StopReason) -> None:
        """Stop in this process; the first reason counts."""
        if self.stopped is None:
            self.stopped = reason
            if self.work:
                self.work.cancel()

    def lose(self, result: str) -> NotOurs:
        """Stop, because a write was refused with `result`; return the error to raise."""
        self.stop("superseded" if result == "superseded" else "ended")
        return NotOurs(f"run {self.context.run_id} is {self.stopped}")

    def fail(self, error: ServeAppError) -> ServeAppError:
        """Log nothing more of its work.

        Whatever it logs next raises the error that is returned.
        """
        self.failure = self.failure or error
        self._pending, self._status = [], ""
        return self.failure

    def publish_unlogged(self, last: Failed) -> None:
        """Publish the end of the run to the followers here, where it cannot be logged."""
        self._last_event_id += 1
        self.feed.add([RunEvent(id=self._last_event_id, data=last)])

    @property
    def is_awaited(self) -> bool:
        """Whether the turn waits for what is pending."""
        return self._written is not None

    def take_pending(self) -> RunAppend:
        """Return what is to be written, numbered and encoded.

        The writer is responsible for it from now on.

        Raises:
            Exception: it cannot be encoded, and nothing is taken.
        """
        steps = merge_text(self._pending)
        entries = [
            LogEntry(RunEvent.sound(self._last_event_id + number, data), state)
            for number, (data, state) in enumerate(steps, 1)
        ]
        self._bytes += sum(each.size for each in entries)
        self._last_event_id += len(entries)
        self._pending = []
        return RunAppend(self.context, self.lease.epoch, entries, self._status, self.exchange if self._status else "")

    def take_waiter(self) -> asyncio.Future[None] | None:
        """Return the future that the turn waits on for what was just taken."""
        written, self._written = self._written, None
        return written

    async def _flush(self) -> None:
        if self.stopped:
            raise self.lose(self.stopped)
        if self.failure:
            raise self.failure
        written = self._written = self._written or asyncio.get_running_loop().create_future()
        self.schedule_write(self)
        await asyncio.shield(written)


class EventFeed:
    """All events of a run, for any number of followers; adding one never waits."""

    def __init__(self) -> None:
        self._events: list[RunEvent] = []
        self.closed = False
        """Whether the run is over, or goes on elsewhere."""
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()

    def add(self, events: Iterable[RunEvent]) -> None:
        """Add the next events."""
        self._events.extend(events)
        if self._events and self._events[-1].last:
            self._ended.set()
        self._wake()

    @property
    def last(self) -> RunEvent | None:
        """The latest event."""
        return self._events[-1] if self._events else None

    def close(self) -> None:
        """End the feed: the run is over, or goes on elsewhere."""
        self.closed = True
        self._ended.set()
        self._wake()

    async def events(self, after: int, for_s: float) -> AsyncIterator[RunEvent]:
        """Yield the events after the event `after`.

        Ends with the last event, when the feed is closed, or after `for_s` seconds.
        """
        position = 0
        until = asyncio.get_running_loop().time() + for_s
        while True:
            while position < len(self._events):
                event = self._events[position]
                position += 1
                if event.id > after:
                    yield event
            if self.closed or not await _wait_until(self._changed, until):
                return

    async def last_event(self, for_s: float) -> RunEvent | None:
        """Wait `for_s` seconds for the last event; None where it does not come here."""
        await _wait_until(self._ended, asyncio.get_running_loop().time() + for_s)
        return self.last if self.last and self.last.last else None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _wait_until(event: asyncio.Event, until: float) -> bool:
    try:
        async with asyncio.timeout_at(until):
            return await event.wait()
    except TimeoutError:
        return False
