"""What does a run know of itself in the process that runs it, and what may its turn do to it?"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from serve_app.errors import Internal, RunTooLarge, ServeAppError, StoreUnavailable
from serve_app.resilience.deadline import remaining_s
from serve_app.resilience.retry import outlast
from serve_app.runs.entries import Entry, merged
from serve_app.runs.registry import Append
from serve_app.values import Event, Token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve_app.runs.feed import Feed
    from serve_app.runs.registry import Held
    from serve_app.runs.writer import Writer
    from serve_app.values import Answer, ChatRequest, Context, EventData, Failed, RunStatus

STORE_PATIENCE_S = 5.0
"""How long a run waits for a Redis that does not answer: an embedded one is back within a second."""

MAX_ADOPTIONS = 3
"""A run that has killed so many processes, or seen them die, would go on with that."""

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
    writer: Writer
    max_bytes: int
    feed: Feed
    entries: Sequence[Entry] = field(default=(), init=False)
    """What earlier owners logged."""
    stopped: Stop | None = None
    work: asyncio.Task[Answer] | None = None
    exchange: str = field(default="", init=False)
    """What memory keeps of this run, however it ends from now on."""
    _last: int = field(init=False)
    _bytes: int = field(default=0, init=False)
    _unwritten: list[tuple[EventData, str]] = field(default_factory=list, init=False)
    _status: RunStatus | Literal[""] = field(default="", init=False)
    _written: asyncio.Future[None] | None = field(default=None, init=False)
    _failure: StoreUnavailable | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._last = self.held.last

    def recover(self, entries: Sequence[Entry]) -> None:
        """Go on from what earlier owners logged."""
        self.entries = entries
        self._bytes = sum(each.size for each in entries)
        self.feed.add(each.event for each in entries)

    @property
    def abandoned(self) -> bool:
        """Whether so many processes have died over the run that it must not be gone on with."""
        return self.held.adoptions > MAX_ADOPTIONS

    def say(self, token: Token) -> None:
        """Send a piece of text, soon and together with its neighbours."""
        self._unwritten.append((token, ""))
        self.writer.write(self)

    async def record(self, *steps: tuple[EventData, str]) -> None:
        """Log steps, each with what a successor needs to go on after it; they are in Redis when this returns.

        Raises:
            NotOurs: another process has the run, or it was ended.
            RunTooLarge: the log would grow over its limit.
            StoreUnavailable: Redis did not answer for `STORE_PATIENCE_S`.
        """
        if self._bytes + sum(len(state) for _, state in steps) > self.max_bytes:
            raise RunTooLarge("The turn takes up more than it may; ask for less at once")
        self._unwritten.extend(steps)
        await self._flushed()

    async def end(self, last: Answer | Failed, status: RunStatus) -> None:
        """Log the last event, leave the session, and have memory keep the exchange.

        Raises:
            NotOurs: another process has the run, or it was ended.
            StoreUnavailable: Redis did not answer for `STORE_PATIENCE_S`.
        """
        self._unwritten.append((last, ""))
        self._status = status
        await self._flushed()

    async def reserve(self, step: int, index: int) -> bool:
        """Say that the effect of a call is about to be made; False where an earlier owner said so before it died.

        Raises:
            NotOurs: another process has the run, or it was ended.
            StoreUnavailable: Redis did not answer for `STORE_PATIENCE_S`.
        """
        call = f"effect:{step}:{index}"
        registry = self.writer.registry
        reserved = await outlast(
            lambda: registry.reserve(self.context, self.held.epoch, call), self.patience_s, StoreUnavailable
        )
        if reserved in {"superseded", "ended"}:
            raise self.lost(reserved)
        if self.stopped:  # the cancellation may have been lost in the client
            raise self.lost(self.stopped)
        return reserved == "kept"

    @property
    def patience_s(self) -> float:
        """How long the run may wait for Redis."""
        return min(STORE_PATIENCE_S, remaining_s(self.context.deadline))

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

    def tell_without_log(self, last: Answer | Failed) -> None:
        """Tell the followers here how the run ended, where Redis cannot be told."""
        self.feed.add([Event(id=self._last + 1, data=last)])

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for what is not yet written."""
        return self._written is not None

    def take(self) -> Append:
        """What is to be written; it is numbered now, and taken over by the writer."""
        steps, self._unwritten = merged(self._unwritten), []
        entries = [
            Entry(Event(id=self._last + number, data=data), state) for number, (data, state) in enumerate(steps, 1)
        ]
        self._last += len(entries)
        self._bytes += sum(each.size for each in entries)
        return Append(self.context, self.held.epoch, entries, self._status, self.exchange if self._status else "")

    def taken(self) -> asyncio.Future[None] | None:
        """Who waits for what was just taken."""
        written, self._written = self._written, None
        return written

    def unwritable(self, failure: StoreUnavailable) -> None:
        """Redis was away for too long: what was taken is lost, and so is the log's order."""
        self._failure = failure

    async def _flushed(self) -> None:
        if self.stopped:
            raise self.lost(self.stopped)
        if self._failure:
            raise self._failure
        if self._written is None:
            self._written = asyncio.get_running_loop().create_future()
        self.writer.write(self)
        await asyncio.shield(self._written)


def settle(written: asyncio.Future[None] | None, error: ServeAppError | None) -> None:
    """Tell the one who waits for a write how it went."""
    if written is None or written.done():
        return
    if error is None:
        written.set_result(None)
    else:
        written.set_exception(error)
        written.exception()  # nobody may be waiting any more
