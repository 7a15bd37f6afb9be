"""Admission control: which turns start now, wait for a place, or are refused.

Order: check for room and the rate limit, read the body, take a place; the place is kept until the response has ended.
So a client that sends its body slowly takes no place meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from math import ceil
from typing import TYPE_CHECKING

from serve_app.errors import Overloaded, StoreUnavailable
from serve_app.http.errors import error_response
from serve_app.http.request_context import caller_of, path_of, set_metering
from serve_app.observability.metric_catalogue import ADMISSION_WAIT_S, PLACES, TURNS_WAITING
from serve_app.observability.metrics import NULL_METRICS
from serve_app.resilience.adaptive_limit import AdaptiveLimit
from serve_app.resilience.fair_queue import RESERVED_SHARE, FairQueue, Throughput
from serve_app.resilience.tasks import cancel_and_wait
from serve_app.stores.capacity_store import REPORT_EVERY_S as READ_EVERY_S

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serve_app.config import AdmissionSettings
    from serve_app.observability.metrics import LoopLoad
    from serve_app.ports import Metrics
    from serve_app.resilience.fair_queue import Ticket
    from serve_app.stores.api_keys import ApiKeyCache
    from serve_app.stores.capacity_store import CapacityShare, CapacityStore
    from serve_app.stores.rate_limiter import RateLimiter

logger = logging.getLogger(__name__)

REPORT_EVERY_S = 5.0
FIRST_PLACES = 100
"""Until the first agent has reported."""
MAX_PLACES = 1500
"""With the queue and other requests, below `max_ongoing_requests` of Ingress in `serve_config.yaml`."""
MIN_PLACES = 64
"""For each agent, however busy the event loops are: so many turns keep its core busy, and fewer would leave it idle
while they wait for the model."""
TURN_PATHS = frozenset({"/agent/chat", "/v1/chat/completions"})
"""A POST to one of these paths starts a turn."""


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
        self._multi_tenant = multi_tenant
        self._max_turns = settings.max_turns
        places = settings.max_turns or FIRST_PLACES
        self._limit = AdaptiveLimit()
        self._queue = FairQueue(places, settings.max_waiting, self._count_reserved(places))
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
            self._wake(next_ticket)

    def _wake(self, ticket: Ticket) -> None:
        """Start a turn that has waited."""
        waiting = self._waiting.pop(ticket)
        if not waiting.done():  # its task may have been cancelled in this moment; it then gives the place back
            waiting.set_result(None)

    def _count_reserved(self, places: int) -> int:
        """Return how many places no single tenant can take."""
        return ceil(places / RESERVED_SHARE) if self._multi_tenant and places > 1 else 0

    async def follow_capacity(self, store: CapacityStore, loop_load: LoopLoad) -> None:
        """Adapt the places to the agents' capacity and to the event loops' load, for ever.

        While Redis is away, or no agent reports, the places stay as they are.
        """
        while True:
            try:
                share = await store.read_share()
                if share:
                    self._adapt(share, loop_load.busy)
            except StoreUnavailable as error:
                logger.debug("capacity_not_read", extra={"error": error.message})
            except Exception:
                logger.exception("capacity_not_read")
            await asyncio.sleep(READ_EVERY_S)

    def _adapt(self, share: CapacityShare, own_busy: float) -> None:
        """Set the places for the next second."""
        if self._max_turns:
            return
        busy, most = max(share.busy, own_busy), min(share.turns, MAX_PLACES)
        places = self._limit.update(busy, self._queue.served, min(most, MIN_PLACES * share.agents), most)
        if places != self._queue.places:
            for ticket in self._queue.resize(places, self._count_reserved(places)):
                self._wake(ticket)
        self._metrics.set(PLACES, places)

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


class RateLimitMiddleware:
    """Refuses a turn without room or over its rate limit, before its body is read."""

    def __init__(self, app: ASGIApp, admission: AdmissionController | None, limiter: RateLimiter | None) -> None:
        self._app = app
        self._admission = admission
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_turn(scope):
            try:
                await self._check_turn(scope)
            except Overloaded as error:
                await _refuse(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _check_turn(self, scope: Scope) -> None:
        """Check the room first: a turn that finds none takes nothing from its rate limit.

        Raises:
            Overloaded: there is no room, or the rate limit is used up.
        """
        caller = caller_of(scope)
        if self._admission:
            self._admission.check_room(caller.tenant)
        if self._limiter:
            set_metering(scope, await self._limiter.take_turn(caller))


class AdmissionMiddleware:
    """Gives each turn whose body was read a place, or lets it wait."""

    def __init__(self, app: ASGIApp, admission: AdmissionController) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_turn(scope):
            await self._app(scope, receive, send)
            return
        try:
            ticket = self._admission.enter(caller_of(scope).tenant)
        except Overloaded as error:
            await _refuse(error, scope, receive, send)
            return
        try:
            await self._run_turn(ticket, scope, receive, send)
        finally:
            self._admission.leave(ticket)

    async def _run_turn(self, ticket: Ticket, scope: Scope, receive: Receive, send: Send) -> None:
        if ticket.state == "waits":
            watcher = DisconnectWatcher(receive)
            try:
                if not await self._wait_for_place(ticket, watcher):
                    return
            except Overloaded as error:
                await _refuse(error, scope, receive, send)
                return
            receive = watcher.receive
        await self._app(scope, receive, send)

    async def _wait_for_place(self, ticket: Ticket, watcher: DisconnectWatcher) -> bool:
        """True when the turn has its place; False when its client has disconnected."""
        disconnect = asyncio.create_task(watcher.wait_for_disconnect())
        try:
            return await self._admission.wait_for_place(ticket, disconnect)
        finally:
            await cancel_and_wait(disconnect)


class DisconnectWatcher:
    """Watches for a disconnect while a turn waits.

    It keeps what the client sends meanwhile for the application.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []

    async def wait_for_disconnect(self) -> None:
        """Return when the client has disconnected."""
        while True:
            message = await self._receive()
            self._messages.append(message)
            if message["type"] == "http.disconnect":
                return

    async def receive(self) -> Message:
        """The messages that came meanwhile, then new ones."""
        return self._messages.pop(0) if self._messages else await self._receive()


def is_turn(scope: Scope) -> bool:
    """Whether the request starts a turn."""
    return scope["type"] == "http" and scope["method"] == "POST" and path_of(scope) in TURN_PATHS


async def _refuse(error: Overloaded, scope: Scope, receive: Receive, send: Send) -> None:
    """Send the response and keep the connection open for the next try.

    The server throws the body away.
    """
    await error_response(error, scope)(scope, receive, send)
