"""Admission of turns: room and rate limit first, then the body, then a place.

A turn keeps its place until its response has ended. A client that sends its body slowly holds no place meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from serve_app.errors import Overloaded
from serve_app.http.errors import error_response
from serve_app.http.request_context import caller_of, path_of, set_metering
from serve_app.resilience.tasks import cancel_and_wait

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serve_app.http.admission_controller import AdmissionController
    from serve_app.resilience.fair_queue import Ticket
    from serve_app.stores.rate_limiter import RateLimiter

TURN_PATHS = frozenset({"/agent/chat", "/v1/chat/completions"})
"""A POST to one of these paths starts a turn."""


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
