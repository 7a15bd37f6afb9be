"""Which turns come in?

Before the body is read: is there room, and does the caller's allowance go so far? After it: a place for the turn, which
it keeps until its response has ended. A client that sends its body slowly holds no place meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from serve_app.errors import Overloaded
from serve_app.http.callers import caller_of, meter
from serve_app.http.errors import answer_to
from serve_app.http.paths import path_of
from serve_app.resilience.tasks import cancel_and_wait

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serve_app.http.places import Admission
    from serve_app.resilience.fair_queue import Ticket
    from serve_app.stores.rate_limiter import RateLimiter

TURNS = frozenset({"/agent/chat", "/v1/chat/completions"})
"""The paths at which turns are asked for."""


class Screened:
    """Refuses the turns for which there is no room, or no allowance; pure ASGI, before the body is read."""

    def __init__(self, app: ASGIApp, admission: Admission | None, limiter: RateLimiter | None) -> None:
        self._app = app
        self._admission = admission
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _asks_for_turn(scope):
            try:
                await self._see(scope)
            except Overloaded as error:
                await _refuse(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _see(self, scope: Scope) -> None:
        """Whether there is room, and then an allowance: a turn that finds no room takes nothing from an allowance.

        Raises:
            Overloaded: there is not.
        """
        caller = caller_of(scope)
        if self._admission:
            self._admission.check(caller.tenant)
        if self._limiter:
            meter(scope, await self._limiter.take_turn(caller))


class Admitted:
    """Gives each turn a place, or has it wait for one; pure ASGI, after the body was read."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _asks_for_turn(scope):
            await self._app(scope, receive, send)
            return
        try:
            ticket = self._admission.enter(caller_of(scope).tenant)
        except Overloaded as error:
            await _refuse(error, scope, receive, send)
            return
        try:
            await self._served(ticket, scope, receive, send)
        finally:
            self._admission.leave(ticket)

    async def _served(self, ticket: Ticket, scope: Scope, receive: Receive, send: Send) -> None:
        if ticket.state == "waits":
            heard = Heard(receive)
            try:
                if not await self._waited(ticket, heard):
                    return
            except Overloaded as error:
                await _refuse(error, scope, receive, send)
                return
            receive = heard.receive
        await self._app(scope, receive, send)

    async def _waited(self, ticket: Ticket, heard: Heard) -> bool:
        """Whether the turn's place came before its client left."""
        leaving = asyncio.create_task(heard.until_left())
        try:
            return await self._admission.served(ticket, leaving)
        finally:
            await cancel_and_wait(leaving)


class Heard:
    """What a client says while it waits, kept for the application."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []

    async def until_left(self) -> None:
        """Until the client has left."""
        while True:
            message = await self._receive()
            self._messages.append(message)
            if message["type"] == "http.disconnect":
                return

    async def receive(self) -> Message:
        """As the application expects it."""
        return self._messages.pop(0) if self._messages else await self._receive()


def _asks_for_turn(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["method"] == "POST" and path_of(scope) in TURNS


async def _refuse(error: Overloaded, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer, and leave the connection open: whoever comes back need not make another. The server drops the body."""
    await answer_to(error, scope)(scope, receive, send)
