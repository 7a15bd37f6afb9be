"""What does a run know of itself in the process that runs it, and what may its turn do to it?"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from serve_app.errors import Internal, RunTooLarge, ServeAppError, StoreUnavailable
from serve_app.observability.null import NULL_SPAN
from serve_app.resilience.deadline import local_deadline, remaining_s
from serve_app.runs.entries import Entry, merged
from serve_app.runs.store import Append
from serve_app.values import RunEvent, Token, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve_app.ports import TurnSpan
    from serve_app.runs.event_feed import EventFeed
    from serve_app.runs.event_writer import EventWriter
    from serve_app.runs.store import Held
    from serve_app.values import Answer, ChatRequest, Context, EventData, Failed, Reasoning, RunStatus

MAX_ADOPTIONS = 3
"""A run that has killed so many processes, or seen them die, would go on with that."""

NOTHING = Usage()

Stop = Literal["superseded", "ended", "handed over"]
"""Why a run goes on no longer in this process: another one has it, a client ended it, or this process shuts down."""


class NotOurs(Internal):
    """The run is no longer this process's; nobody is told of it here."""


@dataclass(slots=True)
class Run:
    """One run, from the moment that it has its session's turn."""

    context: Context
    request: ChatRequest
    held: Held
    writer: EventWriter
    max_bytes: int
    feed: EventFeed
    detached: bool = False
    """Redis was away when the run began: nothing is remembered or logged, and no effect can be reserved."""
    span: TurnSpan = NULL_SPAN
    """What is recorded of the turn."""
    entries: Sequence[Entry] = field(default=(), init=False)
    """What earlier owners logged."""
    stopped: Stop | None = None
    failure: ServeAppError | None = field(default=None, init=False)
    """Why nothing more of its work can be logged; the run ends with it."""
    work: asyncio.Task[Answer] | None = None
    ended_at: float | None = field(default=None, init=False)
    """Unix time in seconds at which its last event was there."""
    usage: Usage = field(default=NOTHING, init=False)
    """What its model calls have used, those of earlier owners included, as far as it is known."""
    exchange: str = field(default="", init=False)
    """What memory keeps of this run, however it ends from now on."""
    _spoken: bool = field(default=False, init=False)
    _last: int = field(init=False)
    _bytes: int = field(default=0, init=False)
    _unwritten: list[tuple[EventData, str]] = field(default_factory=list, init=False)
    _status: RunStatus | Literal[""] = field(default="", init=False)
    _written: asyncio.Future[None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._last = self.held.last

    def recover(self, entries: Sequence[Entry]) -> None:
        """Go on from what earlier owners logged."""
        self.entries = entries
        self._spoken = any(isinstance(each.event.data, Token) for each in entries)
        self._bytes = sum(each.size for each in entries)
        self.feed.add(each.event for each in entries)

    @property
    def age_s(self) -> float:
        """Seconds from its registration until now, or until it ended."""
        return (self.ended_at or time.time()) - self.held.registered_at

    @property
    def abandoned(self) -> bool:
        """Whether so many processes have died over the run that it must not be gone on with."""
        return self.held.adoptions > MAX_ADOPTIONS

    def say(self, piece: Token | Reasoning) -> None:
        """Send a piece of text, soon and together with its neighbours."""
        if self.failure:
            return
        if isinstance(piece, Token) and not self._spoken:
            self._spoken = True
            self.writer.metrics.said(self.age_s)
        self._unwritten.append((piece, ""))
        self.writer.write(self)

    async def record(self, *steps: tuple[EventData, str]) -> None:
        """Log steps, each with what a successor needs to go on after it.

        They are in Redis when this returns; while Redis is away for long, they are told and written later.

        Raises:
            NotOurs: another process has the run, or it was ended.
            RunTooLarge: the log would grow over its limit.
        """
        if self._bytes + sum(len(state) for _, state in steps) > self.max_bytes:
            raise RunTooLarge("The turn takes up more than it may; ask for less at once")
        self._unwritten.extend(steps)
        await self._flushed()

    async def end(self, last: Answer | Failed, status: RunStatus) -> None:
        """Log the last event, leave the session, and have memory keep the exchange.

        Raises:
            NotOurs: another process has the run, or it was ended.
            Internal: it cannot be written; a failure may still be.
        """
        self.failure = None
        self._unwritten.append((last, ""))
        self._status = status
        self.ended_at = time.time()
        await self._flushed()

    async def reserve(self, step: int, index: int) -> bool:
        """Say that the effect of a call is about to be made; False where an earlier owner said so before it died.

        Raises:
            NotOurs: another process has the run, or it was ended.
            StoreUnavailable: Redis does not answer.
        """
        if self.detached:
            raise StoreUnavailable("Redis did not answer when the run began")
        call = f"effect:{step}:{index}"
        registry, patience = self.writer.registry, self.writer.patience
        reserved = await patience.call_until(
            lambda: registry.reserve(self.context, self.held.epoch, call), remaining_s(local_deadline(self.context))
        )
        if reserved in {"superseded", "ended"}:
            raise self.lost(reserved)
        if self.stopped:  # the cancellation may have been lost in the client
            raise self.lost(self.stopped)
        return reserved == "kept"

    def stop(self, why: Stop) -> None:
        """Go on no longer; the first reason counts."""
        if self.stopped is None:
            self.stopped = why
            if self.work:
                self.work.cancel()

    def lost(self, kept: str) -> NotOurs:
        """Stop, because a write was refused."""
        self.stop("superseded" if kept == "superseded" else "ended")
        return NotOurs(f"run {self.context.run_id} is {self.stopped}")

    def fail(self, error: ServeAppError) -> ServeAppError:
        """Log nothing more of its work, because that failed; whatever it logs next raises the error."""
        self.failure = self.failure or error
        self._unwritten, self._status = [], ""
        return self.failure

    def tell(self, last: Failed) -> None:
        """Show the followers here how the run ended, where that cannot be logged."""
        self._last += 1
        self.feed.add([RunEvent(id=self._last, data=last)])

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for what is not yet written."""
        return self._written is not None

    def take(self) -> Append:
        """What is to be written, encoded; it is numbered now, and taken over by the writer.

        Raises:
            Exception: it cannot be encoded, and nothing is taken.
        """
        steps = merged(self._unwritten)
        entries = [
            Entry(RunEvent(id=self._last + number, data=data.sanitize()), state)
            for number, (data, state) in enumerate(steps, 1)
        ]
        self._bytes += sum(each.size for each in entries)
        self._last += len(entries)
        self._unwritten = []
        return Append(self.context, self.held.epoch, entries, self._status, self.exchange if self._status else "")

    def taken(self) -> asyncio.Future[None] | None:
        """Who waits for what was just taken."""
        written, self._written = self._written, None
        return written

    async def _flushed(self) -> None:
        if self.stopped:
            raise self.lost(self.stopped)
        if self.failure:
            raise self.failure
        written = self._written = self._written or asyncio.get_running_loop().create_future()
        self.writer.write(self)
        await asyncio.shield(written)


def settle(written: asyncio.Future[None] | None, error: ServeAppError | None) -> None:
    """Tell the one who waits for a write how it went."""
    if written is None or written.done():
        return
    if error is None:
        written.set_result(None)
    else:
        written.set_exception(error)
        written.exception()  # nobody may be waiting any more
