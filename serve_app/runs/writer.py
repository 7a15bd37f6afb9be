"""When are the events of this process's runs written, and how many at once?

One pipeline carries the events of all runs: at once where a run waits for its step to be written, else every 25 ms, so
that a token costs a share of a round trip. The interval stretches so that writing takes a tenth of the time at most.
An event is in Redis before a follower is told of it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from serve_app.errors import StoreUnavailable
from serve_app.resilience.retry import outlast
from serve_app.runs.run import STORE_PATIENCE_S, settle

if TYPE_CHECKING:
    from serve_app.runs.registry import Append, Kept, Registry
    from serve_app.runs.run import Run

logger = logging.getLogger(__name__)

INTERVAL_MIN_S, INTERVAL_MAX_S = 0.025, 0.25
SHARE = 10
"""The interval is so many times what the last write took."""


class Writer:
    """Writes for all runs of one process."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._waiting: dict[str, Run] = {}
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
        appends = [run.take() for run in runs]
        written = [run.taken() for run in runs]
        try:
            kept = await outlast(lambda: self.registry.append(appends), STORE_PATIENCE_S, StoreUnavailable)
        except StoreUnavailable as error:
            logger.warning("events of %d runs are not written: %s", len(runs), error)
            for run, each in zip(runs, written, strict=True):
                run.unwritable(error)
                settle(each, error)
            return
        for run, append, each, outcome in zip(runs, appends, written, kept, strict=True):
            _told(run, append, each, outcome)


def _told(run: Run, append: Append, written: asyncio.Future[None] | None, kept: Kept) -> None:
    """What became of a write, to the run and to its followers."""
    if kept == "kept":
        run.feed.add(entry.event for entry in append.entries)
        settle(written, None)
    else:
        settle(written, run.lost(kept))
