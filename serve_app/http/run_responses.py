"""Responses that give a run's events: one JSON answer, or server-sent events."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack, aclosing, suppress
from typing import TYPE_CHECKING

from starlette.responses import Response

from serve_app.errors import DeadlineExceeded, Internal, RunCancelled
from serve_app.http.errors import failure_response, result_or_failure
from serve_app.http.request_context import answer_timeout_s, time_limit
from serve_app.values import Answer, Cancelled, Failed, RunEvent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import Receive, Scope, Send

    from serve_app.values import Context

DEGRADED = "X-Degraded"
_NOT_IN_HEADERS = re.compile(r"[^ -~]")
"""Characters that no header carries; the name of a tool may have them."""
CANCELLED = "The run was cancelled, so that there is no answer"
FIRST_EVENT_S = 10.0
"""A turn that waits longer for the session's other turn begins its stream with a keep-alive."""
LOOK_UP_S = 1.0
"""Enough to find that there is no such run, or that it is over; a resumed stream opens no later."""
KEEP_ALIVE_S = 15.0
"""After so long a silence a comment is sent: proxies cut connections that are silent for 30-60 s."""
KEEP_ALIVE = b": keep-alive\n\n"
CLOSE_S = 5.0
"""The time limit for closing a generator of events: it has at most a remote call to cancel."""

STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}
"""`X-Accel-Buffering` keeps nginx from holding frames back."""


async def answer_response(events: AsyncGenerator[RunEvent, None], context: Context) -> Response:
    """The run's last event as one JSON body.

    Raises:
        RunCancelled: the run ends without an answer.
    """
    last, json_data = await read_last(events, context)
    if isinstance(last, Failed):
        return failure_response(last.error)
    return add_degraded_header(Response(json_data, media_type="application/json"), last)


async def read_last(events: AsyncGenerator[RunEvent, None], context: Context) -> tuple[Answer | Failed, str]:
    """The data of the run's last event, and its JSON.

    Raises:
        RunCancelled: the run ends without an answer.
    """
    async with time_limit(answer_timeout_s(context)), aclosing(events):
        async for event in events:
            match event.data:
                case Answer() | Failed() as last:
                    return last, event.json_data
                case Cancelled():
                    raise RunCancelled(CANCELLED)
    raise Internal("The run ended without its last event")


def add_degraded_header(response: Response, answer: Answer) -> Response:
    """Add what the answer was made without, for proxies and probes, which read no body."""
    if answer.degraded:
        response.headers[DEGRADED] = _NOT_IN_HEADERS.sub("?", ", ".join(answer.degraded))
    return response


async def stream_response(events: AsyncGenerator[RunEvent, None], context: Context) -> Response:
    """A new stream; an error response if anything fails before the first frame."""
    return await _open_stream(events, context, FIRST_EVENT_S, failed_is_status=True)


async def resume_stream(events: AsyncGenerator[RunEvent, None], context: Context) -> Response:
    """The rest of a stream in the same frames; 204 where nothing is left."""
    return await _open_stream(events, context, LOOK_UP_S, failed_is_status=False)


async def _open_stream(
    events: AsyncGenerator[RunEvent, None], context: Context, wait_s: float, *, failed_is_status: bool
) -> Response:
    """Open a stream after its first event, or after `wait_s`.

    Until then a failure can still become a status.
    """
    async with AsyncExitStack() as undo:
        follower = RunFollower(events)
        undo.push_async_callback(follower.close)
        left_s = answer_timeout_s(context)
        first = await follower.next(min(left_s, wait_s))
        if follower.ended:
            return Response(status_code=204)
        if first is None and left_s <= wait_s:
            raise DeadlineExceeded("The request's time ran out")
        if failed_is_status and first is not None and isinstance(first.data, Failed):
            return failure_response(first.data.error)
        undo.pop_all()
    return EventStreamResponse(run_frames(follower, first, context), follower)


class RunFollower:
    """Reads a run's events in a task of its own.

    So a pause for a keep-alive does not cancel the reading.
    """

    def __init__(self, events: AsyncGenerator[RunEvent, None]) -> None:
        self._queue: asyncio.Queue[RunEvent | None] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read(events))
        self.ended = False

    async def next(self, timeout_s: float) -> RunEvent | None:
        """The next event; None after `timeout_s` seconds or when the events have `ended`.

        Raises:
            Exception: whatever the reading failed with.
        """
        try:
            async with asyncio.timeout(timeout_s):
                event = await self._queue.get()
        except TimeoutError:
            return None
        if event is None:
            await self._reader
            self.ended = True
        return event

    async def close(self) -> None:
        """Stop the reading, and close the generator."""
        self._reader.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self, events: AsyncGenerator[RunEvent, None]) -> None:
        try:
            async with aclosing(events):
                async for event in events:
                    self._queue.put_nowait(event)
        finally:
            self._queue.put_nowait(None)


def encode_frame(event: RunEvent) -> bytes:
    """Encode an event; its JSON has no line breaks, because JSON escapes them."""
    return f"id: {event.id}\nevent: {event.name}\ndata: {event.json_data}\n\n".encode()


async def run_frames(follower: RunFollower, first: RunEvent | None, context: Context) -> AsyncGenerator[bytes, None]:
    """The items of `run_items` as frames.

    A failure of the stream repeats the id of the last event, so that a client that resumes skips none.
    """
    last: RunEvent | None = None
    async with aclosing(run_items(follower, first, context)) as items:
        async for item in items:
            if isinstance(item, Failed):
                yield encode_frame(RunEvent(id=last.id if last else 0, data=item))
            else:
                last = item or last
                yield encode_frame(item) if item else KEEP_ALIVE


async def run_items(
    follower: RunFollower, first: RunEvent | None, context: Context
) -> AsyncGenerator[RunEvent | Failed | None, None]:
    """The first event and all that follow, or a failure of the stream.

    None stands for a silence, in which the client needs a keep-alive.
    """
    event = first
    yield event
    while event is None or not event.last:
        item = await result_or_failure(_next(follower, context), context.request_id)
        if follower.ended:
            return
        yield item
        if isinstance(item, Failed):
            return
        event = item or event


async def _next(follower: RunFollower, context: Context) -> RunEvent | None:
    left_s = answer_timeout_s(context)
    event = await follower.next(min(left_s, KEEP_ALIVE_S))
    if event is None and left_s <= KEEP_ALIVE_S and not follower.ended:
        raise DeadlineExceeded("The request's time ran out")
    return event


class EventStreamResponse(Response):
    """Sends frames until they end or the client disconnects, then closes their source.

    Starlette's own streaming response runs in an anyio task group. When the client disconnects, the group is cancelled,
    and each `await` of a generator that is closing is interrupted. Here the frames close without interruption.
    """

    def __init__(self, frames: AsyncGenerator[bytes, None], follower: RunFollower) -> None:
        super().__init__(headers=STREAM_HEADERS)
        del self.headers["Content-Length"]
        self._frames = frames
        self._follower = follower

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        sender = asyncio.create_task(self._send(send))
        disconnect = asyncio.create_task(_wait_for_disconnect(receive))
        try:
            await asyncio.wait({sender, disconnect}, return_when=asyncio.FIRST_COMPLETED)
            if sender.done():
                with suppress(OSError):  # the client has disconnected
                    sender.result()
        finally:
            sender.cancel()
            disconnect.cancel()
            await asyncio.gather(sender, disconnect, return_exceptions=True)
            await self._follower.close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._frames):
            async for frame in self._frames:
                await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
