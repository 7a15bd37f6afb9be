"""The event writer: writes the events of all runs of a process to Redis.

A step that a turn waits for is written at once; text every 25 ms, so that a token costs a share of a round trip. The
interval grows so that writing takes a fifth of the time at most. An event is in Redis before a follower gets it. While
Redis is away for long, followers get it at once, and it is written when Redis is back, unless another process has
adopted the run by then.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from serve_app.errors import Internal, StoreCorrupt, StoreUnavailable
from serve_app.runs.metrics import NO_METRICS
from serve_app.stores.availability import RedisAvailability

if TYPE_CHECKING:
    from serve_app.errors import ServeAppError
    from serve_app.runs.metrics import RunMetrics
    from serve_app.runs.run import Run
    from serve_app.runs.store import RunAppend, RunStore, WriteResult
    from serve_app.stores.rate_limiter import TokenMeter
    from serve_app.values import Context, EventData, RunStatus

logger = logging.getLogger(__name__)

INTERVAL_MIN_S, INTERVAL_MAX_S = 0.025, 0.25
INTERVAL_FACTOR = 4
"""The interval is so many times what the last write took."""


class PendingWrite(NamedTuple):
    """What one run has to write, and the future that its turn waits on."""

    run: Run
    append: RunAppend
    waiter: asyncio.Future[None] | None


class UnwrittenEnd(NamedTuple):
    """An end that followers have got and Redis has not.

    `owner` is the process that must still have the run.
    """

    run: Run
    status: RunStatus
    last: EventData
    owner: str


class EventWriter:
    """Writes for all runs of one process."""

    def __init__(
        self,
        store: RunStore,
        availability: RedisAvailability | None = None,
        metrics: RunMetrics = NO_METRICS,
        meter: TokenMeter | None = None,
    ) -> None:
        self.store = store
        self.metrics = metrics
        self.availability = availability or RedisAvailability()
        self._meter = meter
        self._uncharged: list[tuple[Context, int]] = []
        """Tokens of runs that have ended, which the meter has not been charged with."""
        self._waiting: dict[str, Run] = {}
        self._in_flight = frozenset[str]()
        """The runs whose unpublished events are being written: later events must not be published before them."""
        self._backlog: list[PendingWrite] = []
        """Published, and not yet written."""
        self._unwritten_ends: list[UnwrittenEnd] = []
        """Of runs that ended detached, and of those that lost their session before their end could be written."""
        self._wanted = asyncio.Event()
        self._urgent = asyncio.Event()
        self._next_at = 0.0

    def schedule(self, run: Run) -> None:
        """Write what the run has pending, soon; never waits."""
        self._wanted.set()
        if run.detached or (self.availability.is_away and run.context.run_id not in self._in_flight):
            self._waiting.pop(run.context.run_id, None)
            if pending := self._take(run):
                self._publish_unwritten(pending)
            return
        self._waiting[run.context.run_id] = run
        if run.is_awaited:
            self._urgent.set()

    def charge(self, run: Run) -> None:
        """Charge the tokens of a run that has ended for good."""
        if run.context.metering and self._meter:
            self._uncharged.append((run.context, run.usage.input_tokens + run.usage.output_tokens))
            self._wanted.set()

    @property
    def has_backlog(self) -> bool:
        """Whether published events are not yet written.

        Later events must not be written before them.
        """
        return bool(self._backlog)

    async def write_forever(self) -> None:
        """Write whatever is scheduled, until cancelled; an error of one run costs no other."""
        clock = asyncio.get_running_loop().time
        while True:
            await self._wanted.wait()
            await self._pause()
            self._wanted.clear()
            self._urgent.clear()
            begun = clock()
            try:
                await self._flush()
                await self._charge_meter()
            except Exception:
                logger.exception("events_not_flushed")
            ended = clock()
            self._next_at = ended + min(INTERVAL_MAX_S, max(INTERVAL_MIN_S, INTERVAL_FACTOR * (ended - begun)))

    async def _pause(self) -> None:
        """Wait until the next write is due, or urgent."""
        if asyncio.get_running_loop().time() >= self._next_at:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._next_at):
                await self._urgent.wait()

    async def _flush(self) -> None:
        fresh = self._take_all()
        backlog, ends = list(self._backlog), list(self._unwritten_ends)
        if not fresh and not backlog and not ends:
            return
        call = self.availability.call_once if self.availability.is_away else self.availability.call_until
        appends = [each.append for each in (*backlog, *fresh)]
        self._in_flight = frozenset(each.run.context.run_id for each in fresh)
        try:
            results = await call(lambda: self._write(appends, ends))
        except StoreUnavailable as error:
            logger.warning("events_written_later", extra={"runs": len(fresh) + len(backlog), "error": error.message})
            for each in (*fresh, *self._take_all()):
                self._publish_unwritten(each)
            self._wanted.set()
            return
        except Exception:
            for each in fresh:
                _settle(each, "failed")
            raise
        finally:
            self._in_flight = frozenset()
        del self._backlog[: len(backlog)], self._unwritten_ends[: len(ends)]
        for each, result in zip(backlog, results, strict=False):
            if result == "ok":
                self._count_end(each)
            else:
                _reject(each.run, result)
                self._remember_end(each, self.store.owner)
                self._wanted.set()
        for each, result in zip(fresh, results[len(backlog) :], strict=True):
            _settle(each, result)
            if result == "ok":
                self._count_end(each)

    def _take_all(self) -> list[PendingWrite]:
        """Take what all runs have pending, as far as it can be encoded."""
        runs, self._waiting = list(self._waiting.values()), {}
        return [pending for run in runs if (pending := self._take(run))]

    def _take(self, run: Run) -> PendingWrite | None:
        """Take what one run has pending; where it cannot be encoded, that run fails."""
        try:
            return PendingWrite(run, run.take_pending(), run.take_waiter())
        except Exception:
            logger.exception("events_not_encoded", extra=run.context.ids)
            _wake(run.take_waiter(), run.fail(Internal("An event of the run cannot be encoded")))
            return None

    def _publish_unwritten(self, pending: PendingWrite) -> None:
        """Publish what cannot be written now, and write it later, where Redis knows the run."""
        if pending.run.detached:
            self._remember_end(pending, "")
            self._count_end(pending)
        else:
            pending = pending._replace(append=pending.append.without_memory())
            self._backlog.append(pending)
        _settle(pending, "ok")

    def _remember_end(self, pending: PendingWrite, owner: str) -> None:
        """Write later how the run ended, if it did."""
        if pending.append.status:
            last = pending.append.entries[-1].event.data
            self._unwritten_ends.append(UnwrittenEnd(pending.run, pending.append.status, last, owner))

    def _count_end(self, pending: PendingWrite) -> None:
        """Count a run that this write ended.

        This comes after the write, so that a process that adopts the run does not count it, too.
        """
        if pending.append.status:
            try:
                self.metrics.count_end(pending.append.entries[-1].event.data, pending.run.age_s)
                self.charge(pending.run)
            except Exception:
                logger.exception("run_not_counted", extra=pending.run.context.ids)

    async def _charge_meter(self) -> None:
        uncharged, self._uncharged = self._uncharged, []
        if uncharged and self._meter:
            await self._meter.charge(uncharged)

    async def _write(self, appends: list[RunAppend], ends: list[UnwrittenEnd]) -> list[WriteResult]:
        for each in ends:
            await self._write_end(*each)
        return await self._write_appends(appends) if appends else []

    async def _write_end(self, run: Run, status: RunStatus, last: EventData, owner: str) -> None:
        """Write how one run ended, if possible."""
        try:
            if await self.store.end(run.context, status, last, owner) and owner:
                self.metrics.count_end(last, run.age_s)
                self.charge(run)
        except Exception as error:
            if _is_outage(error):
                raise
            logger.exception("run_not_ended", extra=run.context.ids)

    async def _write_appends(self, appends: list[RunAppend]) -> list[WriteResult]:
        """Write together.

        Where that fails and Redis is there, write each by itself, so that the others are written.
        """
        try:
            return await self.store.append(appends)
        except Exception as error:
            if _is_outage(error):
                raise
            if len(appends) == 1:
                logger.exception("events_not_written", extra=appends[0].context.ids)
                return ["failed"]
        return [result for each in appends for result in await self._write_appends([each])]


def _is_outage(error: Exception) -> bool:
    """Whether Redis is away, and not only the part of one run failed."""
    return isinstance(error, StoreUnavailable) and not isinstance(error, StoreCorrupt)


def _settle(pending: PendingWrite, result: WriteResult) -> None:
    """Pass the result of a write to the run's followers and its turn."""
    if result == "ok":
        pending.run.feed.add(entry.event for entry in pending.append.entries)
        _wake(pending.waiter, None)
    else:
        _wake(pending.waiter, _reject(pending.run, result))


def _reject(run: Run, result: WriteResult) -> ServeAppError:
    """Stop or fail a run whose write was not made; return its error."""
    return run.fail(Internal("The run's events cannot be written")) if result == "failed" else run.lose(result)


def _wake(waiter: asyncio.Future[None] | None, error: ServeAppError | None) -> None:
    """Wake the turn that waits for a write."""
    if waiter is None or waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)
        waiter.exception()  # nobody may be waiting any more
