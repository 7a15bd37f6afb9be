"""How do a run's events travel as server-sent events?"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from starlette.responses import Response

from serve_app.errors import DeadlineExceeded
from serve_app.http.errors import result_or_failure
from serve_app.http.request_context import answer_timeout_s
from serve_app.values import Failed, RunEvent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import Receive, Scope, Send

    from serve_app.http.following import Following
    from serve_app.values import Context

KEEP_ALIVE_S = 15.0
"""Of silence, before a comment is sent: proxies cut connections that are silent for 30-60 s."""
KEEP_ALIVE = b": keep-alive\n\n"

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}
"""The last one keeps nginx from holding frames back."""


def frame(event: RunEvent) -> bytes:
    """One event; its JSON has no line breaks, because JSON escapes those within strings."""
    return f"id: {event.id}\nevent: {event.name}\ndata: {event.data.model_dump_json()}\n\n".encode()


def broken_off(failed: Failed, last: RunEvent | None) -> bytes:
    """A failure of the stream, not of the run: it repeats the id of the last event, so that none is skipped."""
    return frame(RunEvent(id=last.id if last else 0, data=failed))


async def frames(
    following: Following, first: RunEvent | None, context: Context, keep_alive_s: float = KEEP_ALIVE_S
) -> AsyncGenerator[bytes, None]:
    """The steps as they travel."""
    last: RunEvent | None = None
    async with aclosing(steps(following, first, context, keep_alive_s)) as told:
        async for step in told:
            if isinstance(step, Failed):
                yield broken_off(step, last)
            else:
                last = step or last
                yield frame(step) if step else KEEP_ALIVE


async def steps(
    following: Following, first: RunEvent | None, context: Context, keep_alive_s: float = KEEP_ALIVE_S
) -> AsyncGenerator[RunEvent | Failed | None, None]:
    """`first`, if it is there, and what follows, to the last event or to the failure that keeps it away.

    None stands for a silence after which the client wants a sign of life.
    """
    event = first
    yield event
    while event is None or not event.last:
        step = await result_or_failure(_next(following, context, keep_alive_s), context.request_id)
        if following.ended:
            return
        yield step
        if isinstance(step, Failed):
            return
        event = step or event


async def _next(following: Following, context: Context, keep_alive_s: float) -> RunEvent | None:
    left_s = answer_timeout_s(context)
    event = await following.next(min(left_s, keep_alive_s))
    if event is None and left_s <= keep_alive_s and not following.ended:
        raise DeadlineExceeded("The request's time ran out")
    return event


class EventStream(Response):
    """Sends frames until they end or the client leaves, and then closes what they come from.

    Starlette's own streaming response cancels by levels, which cuts short whatever a generator awaits as it closes.
    """

    def __init__(self, frames: AsyncGenerator[bytes, None], following: Following) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["Content-Length"]
        self._frames = frames
        self._following = following

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                with suppress(OSError):  # the client has gone
                    sending.result()
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await self._following.close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._frames):
            async for piece in self._frames:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
