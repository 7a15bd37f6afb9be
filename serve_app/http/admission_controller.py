"""Admission control: which turns start now, which wait for a place, which are refused."""

from __future__ import annotations

import asyncio
import logging
from math import ceil
from typing import TYPE_CHECKING

from serve_app.errors import Overloaded
from serve_app.observability.metric_catalogue import ADMISSION_WAIT_S, TURNS_WAITING
from serve_app.observability.metrics import NULL_METRICS
from serve_app.resilience.fair_queue import RESERVED_SHARE, FairQueue, Throughput

if TYPE_CHECKING:
    from serve_app.config import AdmissionSettings
    from serve_app.ports import Metrics
    from serve_app.resilience.fair_queue import Ticket
    from serve_app.stores.api_key_cache import ApiKeyCache

logger = logging.getLogger(__name__)

REPORT_EVERY_S = 5.0


class AdmissionController:
    """Gives places to turns; a refused turn gets the time after which to try again.

    With `multi_tenant`, no single tenant can take the last eighth of the places.
    """

    def __init__(
        self,
        settings: AdmissionSettings,
        tenants: ApiKeyCache,
        metrics: Metrics = NULL_METRICS,
        *,
        multi_tenant: bool = False,
    ) -> None:
        reserved = ceil(settings.max_turns / RESERVED_SHARE) if multi_tenant and settings.max_turns > 1 else 0
        self._queue = FairQueue(settings.max_turns, settings.max_waiting, reserved)
        self._max_wait_s = settings.max_wait_s
        self._tenants = tenants
        self._metrics = metrics
        self._throughput = Throughput()
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}
        self._most_waiting = 0

    def check_room(self, tenant: str) -> None:
        """Check that a turn of the tenant would have room now.

        Raises:
            Overloaded: there is no room.
        """
        if not self._queue.has_room(tenant):
            raise self._refuse("queue_full", "The service is full")

    def enter(self, tenant: str) -> Ticket:
        """Take a ticket, which `leave` must give back.

        While its state is `waits`, the turn must not start.

        Raises:
            Overloaded: there is no room.
        """
        ticket = self._queue.enter(tenant, self._tenants.tenant_limits(tenant).weight)
        if ticket is None:
            raise self._refuse("queue_full", "The service is full")
        if ticket.state == "waits":
            self._waiting[ticket] = asyncio.get_running_loop().create_future()
            self._most_waiting = max(self._most_waiting, self._queue.waiting)
        return ticket

    async def wait_for_place(self, ticket: Ticket, disconnect: asyncio.Task[None]) -> bool:
        """Wait until the turn may start; False where `disconnect` has ended first.

        Raises:
            Overloaded: the turn waited for as long as it may.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            both = {self._waiting[ticket], disconnect}
            await asyncio.wait(both, timeout=self._max_wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._metrics.observe(ADMISSION_WAIT_S, clock() - started)
        if disconnect.done():
            return False
        if ticket.state == "waits":
            raise self._refuse("wait_expired", f"No place became free within {self._max_wait_s:g} seconds")
        return True

    def leave(self, ticket: Ticket) -> None:
        """Give the place back, in whatever state the turn is."""
        if ticket.state == "served":
            self._throughput.record_end(asyncio.get_running_loop().time())
        self._waiting.pop(ticket, None)
        next_ticket = self._queue.leave(ticket)
        if next_ticket is not None:
            waiting = self._waiting.pop(next_ticket)
            if not waiting.done():  # its task may have been cancelled in this moment; it then gives the place back
                waiting.set_result(None)

    async def report_waiting(self) -> None:
        """Report the largest number of waiting turns every `REPORT_EVERY_S`, for ever."""
        while True:
            try:
                self._metrics.set(TURNS_WAITING, self._most_waiting)
            except Exception:
                logger.exception("waiting_turns_not_reported")
            self._most_waiting = self._queue.waiting
            await asyncio.sleep(REPORT_EVERY_S)

    def _refuse(self, reason: str, message: str) -> Overloaded:
        now = asyncio.get_running_loop().time()
        retry_after_s = self._throughput.retry_after_s(self._queue.waiting, now)
        return Overloaded(message, retry_after_s, reason)
