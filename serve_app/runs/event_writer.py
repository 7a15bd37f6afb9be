"""When are the events of this process's runs written, and how many at once?

One pipeline carries the events of all runs: at once where a run waits for its step to be written, else every 25 ms, so
that a token costs a share of a round trip. The interval stretches so that writing takes a tenth of the time at most.
An event is in Redis before a follower is told of it; while Redis is away for long it is told at once all the same, and
written when Redis is back, where nobody has taken the run over by then.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from serve_app.errors import Internal, StoreCorrupt, StoreUnavailable
from serve_app.runs.metrics import NO_METRICS
from serve_app.runs.run import settle
from serve_app.stores.availability import RedisAvailability

if TYPE_CHECKING:
    from serve_app.errors import ServeAppError
    from serve_app.runs.metrics import RunMetrics
    from serve_app.runs.run import Run
    from serve_app.runs.store import Append, Kept, RunStore
    from serve_app.stores.rate_limiter import TokenMeter
    from serve_app.values import Context, EventData, RunStatus

    Written = tuple[Run, Append]
    Ending = tuple[Run, RunStatus, EventData, str]
    Taken = tuple[Run, Append, asyncio.Future[None] | None]

logger = logging.getLogger(__name__)

INTERVAL_MIN_S, INTERVAL_MAX_S = 0.025, 0.25
SHARE = 10
"""The interval is so many times what the last write took."""


class EventWriter:
    """Writes for all runs of one process."""

    def __init__(
        self,
        registry: RunStore,
        patience: RedisAvailability | None = None,
        metrics: RunMetrics = NO_METRICS,
        meter: TokenMeter | None = None,
    ) -> None:
        self.registry = registry
        self.metrics = metrics
        self._meter = meter
        self._used: list[tuple[Context, int]] = []
        """Tokens of runs that have ended, which nobody has been charged for."""
        self.patience = patience or RedisAvailability()
        self._waiting: dict[str, Run] = {}
        self._under_way = frozenset[str]()
        """The runs whose untold events are being written: what follows these must not be told before them."""
        self._behind: list[Written] = []
        """Told, and not yet written."""
        self._ended: list[Ending] = []
        """Runs that were told to have ended, and the owner without whom they have; Redis must learn that they need no
        other: those that ended detached, and those whose session went on before they could be written."""
        self._wanted = asyncio.Event()
        self._urgent = asyncio.Event()
        self._next_at = 0.0

    def write(self, run: Run) -> None:
        """Write what the run has unwritten, soon; never waits."""
        self._wanted.set()
        if run.detached or (self.patience.is_away and run.context.run_id not in self._under_way):
            self._waiting.pop(run.context.run_id, None)
            if taken := self._taken(run):
                self._tell(taken)
            return
        self._waiting[run.context.run_id] = run
        if run.urgent:
            self._urgent.set()

    def charge(self, run: Run) -> None:
        """Have the tokens of a run charged that has ended, and that nobody goes on with."""
        if run.context.metering and self._meter:
            self._used.append((run.context, run.usage.input_tokens + run.usage.output_tokens))
            self._wanted.set()

    @property
    def behind(self) -> bool:
        """Whether something was told that is not yet written: what follows it must not be written before it."""
        return bool(self._behind)

    async def go_on(self) -> None:
        """Write whatever is wanted, for ever; what fails of one run costs no other."""
        clock = asyncio.get_running_loop().time
        while True:
            await self._wanted.wait()
            await self._paused()
            self._wanted.clear()
            self._urgent.clear()
            begun = clock()
            try:
                await self._flush()
                await self._charge()
            except Exception:
                logger.exception("events_not_flushed")
            ended = clock()
            self._next_at = ended + min(INTERVAL_MAX_S, max(INTERVAL_MIN_S, SHARE * (ended - begun)))

    async def _paused(self) -> None:
        """Until the next write is due, or urgent."""
        if asyncio.get_running_loop().time() >= self._next_at:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._next_at):
                await self._urgent.wait()

    async def _flush(self) -> None:
        fresh = self._take()
        behind, ended = list(self._behind), list(self._ended)
        if not fresh and not behind and not ended:
            return
        attempt = self.patience.call_once if self.patience.is_away else self.patience.call_until
        appends = [*(append for _, append in behind), *(append for _, append, _ in fresh)]
        self._under_way = frozenset(run.context.run_id for run, _, _ in fresh)
        try:
            kept = await attempt(lambda: self._written(appends, ended))
        except StoreUnavailable as error:
            logger.warning("events_written_later", extra={"runs": len(fresh) + len(behind), "error": error.message})
            for each in (*fresh, *self._take()):
                self._tell(each)
            self._wanted.set()
            return
        except Exception:
            for each in fresh:
                _told(each, "failed")
            raise
        finally:
            self._under_way = frozenset()
        del self._behind[: len(behind)], self._ended[: len(ended)]
        for (run, append), outcome in zip(behind, kept, strict=False):
            if outcome == "kept":
                self._count(run, append)
            else:
                _refused(run, outcome)
                self._end(run, append, self.registry.owner)
                self._wanted.set()
        for each, outcome in zip(fresh, kept[len(behind) :], strict=True):
            _told(each, outcome)
            if outcome == "kept":
                self._count(*each[:2])

    def _take(self) -> list[Taken]:
        """What waits to be written, and can be."""
        runs, self._waiting = list(self._waiting.values()), {}
        return [taken for run in runs if (taken := self._taken(run))]

    def _taken(self, run: Run) -> Taken | None:
        """What one run has to write; where it cannot be encoded, that run fails."""
        try:
            return run, run.take(), run.taken()
        except Exception:
            logger.exception("events_not_encoded", extra=run.context.ids)
            settle(run.taken(), run.fail(Internal("An event of the run cannot be encoded")))
            return None

    def _tell(self, taken: Taken) -> None:
        """Tell what cannot be written now, and write it later, where Redis knows the run."""
        run, append, waiting = taken
        if run.detached:
            self._end(run, append, "")
            self._count(run, append)
        else:
            append = append.unremembered()
            self._behind.append((run, append))
        _told((run, append, waiting), "kept")

    def _end(self, run: Run, append: Append, owner: str) -> None:
        """Have Redis learn how the run ended, where it did."""
        if append.status:
            self._ended.append((run, append.status, append.entries[-1].event.data, owner))

    def _count(self, run: Run, append: Append) -> None:
        """Count a run that this write ended: once it is written, so that no one else who goes on with it does, too."""
        if append.status:
            try:
                self.metrics.ended(append.entries[-1].event.data, run.age_s)
                self.charge(run)
            except Exception:
                logger.exception("run_not_counted", extra=run.context.ids)

    async def _charge(self) -> None:
        used, self._used = self._used, []
        if used and self._meter:
            await self._meter.charge(used)

    async def _written(self, appends: list[Append], ended: list[Ending]) -> list[Kept]:
        for each in ended:
            await self._write_end(*each)
        return await self._write_all(appends) if appends else []

    async def _write_end(self, run: Run, status: RunStatus, last: EventData, owner: str) -> None:
        """Have Redis learn how one run ended, if it can."""
        try:
            if await self.registry.end(run.context, status, last, owner) and owner:
                self.metrics.ended(last, run.age_s)
                self.charge(run)
        except Exception as error:
            if _is_away(error):
                raise
            logger.exception("run_not_ended", extra=run.context.ids)

    async def _write_all(self, appends: list[Append]) -> list[Kept]:
        """Write them together; where that fails, and Redis is there, each by itself, so that the others are written."""
        try:
            return await self.registry.append(appends)
        except Exception as error:
            if _is_away(error):
                raise
            if len(appends) == 1:
                logger.exception("events_not_written", extra=appends[0].context.ids)
                return ["failed"]
        return [kept for each in appends for kept in await self._write_all([each])]


def _is_away(error: Exception) -> bool:
    """Whether Redis failed, and not one run's part of the write."""
    return isinstance(error, StoreUnavailable) and not isinstance(error, StoreCorrupt)


def _told(taken: Taken, kept: Kept) -> None:
    """What became of a write, to the run, to the turn that waits for it, and to the run's followers."""
    run, append, waiting = taken
    if kept == "kept":
        run.feed.add(entry.event for entry in append.entries)
        settle(waiting, None)
    else:
        settle(waiting, _refused(run, kept))


def _refused(run: Run, kept: Kept) -> ServeAppError:
    """What a run learns whose write was not kept."""
    return run.fail(Internal("The run's events cannot be written")) if kept == "failed" else run.lost(kept)
