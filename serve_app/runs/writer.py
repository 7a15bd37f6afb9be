"""When are the events of this process's runs written, and how many at once?

One pipeline carries the events of all runs: at once where a run waits for its step to be written, else every 25 ms, so
that a token costs a share of a round trip. The interval stretches so that writing takes a tenth of the time at most.
An event is in Redis before a follower is told of it; while Redis is away for long it is told all the same, and written
when Redis is back, where nobody has taken the run over by then.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from serve_app.errors import StoreUnavailable
from serve_app.runs.patience import Patience
from serve_app.runs.run import settle

if TYPE_CHECKING:
    from serve_app.runs.registry import Append, Kept, Registry
    from serve_app.runs.run import Run

    Written = tuple[Run, Append]
    Taken = tuple[Run, Append, asyncio.Future[None] | None]

logger = logging.getLogger(__name__)

INTERVAL_MIN_S, INTERVAL_MAX_S = 0.025, 0.25
SHARE = 10
"""The interval is so many times what the last write took."""


class Writer:
    """Writes for all runs of one process."""

    def __init__(self, registry: Registry, patience: Patience | None = None) -> None:
        self.registry = registry
        self.patience = patience or Patience()
        self._waiting: dict[str, Run] = {}
        self._behind: list[Written] = []
        """Told, and not yet written."""
        self._ended: list[Written] = []
        """Runs that ended detached; where Redis knows them, from before it went away, it must learn that."""
        self._wanted = asyncio.Event()
        self._urgent = asyncio.Event()
        self._next_at = 0.0

    def write(self, run: Run) -> None:
        """Write what the run has unwritten, soon; never waits."""
        self._waiting[run.context.run_id] = run
        self._wanted.set()
        if run.urgent:
            self._urgent.set()

    async def go_on(self) -> None:
        """Write whatever is wanted, for ever."""
        clock = asyncio.get_running_loop().time
        while True:
            await self._wanted.wait()
            await self._paused()
            self._wanted.clear()
            self._urgent.clear()
            begun = clock()
            await self._flush()
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
        runs, self._waiting = list(self._waiting.values()), {}
        fresh = self._to_write([(run, run.take(), run.taken()) for run in runs])
        behind = self._behind
        if not fresh and not behind and not self._ended:
            return
        appends = [*(append for _, append in behind), *(append for _, append, _ in fresh)]
        try:
            kept = await self.patience.outlast(lambda: self._written(appends))
        except StoreUnavailable as error:
            self._fall_behind(fresh, error)
            return
        self._behind, self._ended = [], []
        for (run, _), outcome in zip(behind, kept, strict=False):
            if outcome != "kept":
                run.lost(outcome)
        for each, outcome in zip(fresh, kept[len(behind) :], strict=True):
            _told(each, outcome)

    def _to_write(self, taken: list[Taken]) -> list[Taken]:
        """Those of runs that Redis knows; the others are told at once."""
        for each in taken:
            run, append, _ = each
            if run.detached:
                _told(each, "kept")
                self._ended += [(run, append)] if append.status else []
        return [each for each in taken if not each[0].detached]

    def _fall_behind(self, fresh: list[Taken], error: StoreUnavailable) -> None:
        """Tell what cannot be written now, and write it later."""
        if fresh:
            logger.warning("events_written_later", extra={"runs": len(fresh), "error": error.message})
        for run, append, waiting in fresh:
            unremembered = append.unremembered()
            _told((run, unremembered, waiting), "kept")
            self._behind.append((run, unremembered))
        self._wanted.set()

    async def _written(self, appends: list[Append]) -> list[Kept]:
        for _, append in self._ended:
            if append.status:
                await self.registry.end(append.context, append.status, append.entries[-1].event.data)
        return await self.registry.append(appends) if appends else []


def _told(taken: Taken, kept: Kept) -> None:
    """What became of a write, to the run, to the turn that waits for it, and to the run's followers."""
    run, append, waiting = taken
    if kept == "kept":
        run.feed.add(entry.event for entry in append.entries)
        settle(waiting, None)
    else:
        settle(waiting, run.lost(kept))
