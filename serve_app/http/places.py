"""Which turns does this process serve at once, which wait, and which are refused?"""

from __future__ import annotations

import asyncio
import logging
from math import ceil
from typing import TYPE_CHECKING

from serve_app.errors import Overloaded
from serve_app.observability.metric_catalogue import ADMISSION_WAIT_S, TURNS_WAITING
from serve_app.observability.null import NULL_METRICS
from serve_app.resilience.fair_queue import RESERVED_SHARE, FairQueue, Throughput

if TYPE_CHECKING:
    from serve_app.config import AdmissionSettings
    from serve_app.ports import Metrics
    from serve_app.resilience.fair_queue import Ticket
    from serve_app.stores.api_key_cache import ApiKeyCache

logger = logging.getLogger(__name__)

TELL_EVERY_S = 5.0


class Admission:
    """Places for turns; whoever is refused is told when to come back.

    Where there may be `several` tenants, none has the last eighth of the places.
    """

    def __init__(
        self,
        settings: AdmissionSettings,
        tenants: ApiKeyCache,
        metrics: Metrics = NULL_METRICS,
        *,
        several: bool = False,
    ) -> None:
        kept = ceil(settings.max_turns / RESERVED_SHARE) if several and settings.max_turns > 1 else 0
        self._queue = FairQueue(settings.max_turns, settings.max_waiting, kept)
        self._max_wait_s = settings.max_wait_s
        self._tenants = tenants
        self._metrics = metrics
        self._pace = Throughput()
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}
        self._most_waiting = 0

    def check(self, tenant: str) -> None:
        """See whether a turn would have room now.

        Raises:
            Overloaded: it would not.
        """
        if not self._queue.has_room(tenant):
            raise self._refused("The service is full")

    def enter(self, tenant: str) -> Ticket:
        """A ticket, which must be given back by `leave`; where its state is `waits`, its turn is not to begin yet.

        Raises:
            Overloaded: there is no room.
        """
        ticket = self._queue.enter(tenant, self._tenants.tenant_limits(tenant).weight)
        if ticket is None:
            raise self._refused("The service is full")
        if ticket.state == "waits":
            self._waiting[ticket] = asyncio.get_running_loop().create_future()
            self._most_waiting = max(self._most_waiting, self._queue.waiting)
        return ticket

    async def served(self, ticket: Ticket, leaving: asyncio.Task[None]) -> bool:
        """Wait until the turn may begin; False where `leaving` has ended before.

        Raises:
            Overloaded: it waited for as long as one may.
        """
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            both = {self._waiting[ticket], leaving}
            await asyncio.wait(both, timeout=self._max_wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._metrics.observe(ADMISSION_WAIT_S, clock() - begun)
        if leaving.done():
            return False
        if ticket.state == "waits":
            raise self._refused(f"No place became free within {self._max_wait_s:g} seconds")
        return True

    def leave(self, ticket: Ticket) -> None:
        """Give the place back, in whatever state the turn is."""
        if ticket.state == "served":
            self._pace.record_end(asyncio.get_running_loop().time())
        self._waiting.pop(ticket, None)
        following = self._queue.leave(ticket)
        if following is not None:
            waiting = self._waiting.pop(following)
            if not waiting.done():  # its task may have been cancelled in this very moment, and gives the place on
                waiting.set_result(None)

    async def go_on(self) -> None:
        """Tell how many have waited, for ever."""
        while True:
            try:
                self._metrics.set(TURNS_WAITING, self._most_waiting)
            except Exception:
                logger.exception("waiting_turns_not_told")
            self._most_waiting = self._queue.waiting
            await asyncio.sleep(TELL_EVERY_S)

    def _refused(self, message: str) -> Overloaded:
        now = asyncio.get_running_loop().time()
        return Overloaded(message, retry_after_s=self._pace.retry_after_s(self._queue.waiting, now))
