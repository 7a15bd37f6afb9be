"""How do a run's events become one response?"""

from __future__ import annotations

import re
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING

from starlette.responses import Response

from serve_app.errors import DeadlineExceeded, Internal, RunCancelled
from serve_app.http.errors import failure_response
from serve_app.http.following import Following
from serve_app.http.request_context import answer_timeout_s, time_limit
from serve_app.http.responses import json_response
from serve_app.http.sse import EventStream, frames
from serve_app.values import Answer, Cancelled, Failed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from serve_app.values import Context, RunEvent

DEGRADED = "X-Degraded"
_NO_HEADER = re.compile(r"[^ -~]")
"""What no header carries: a model may name a tool as it likes."""
CANCELLED = "The run was cancelled, so that there is no answer"
FIRST_EVENT_S = 10.0
"""A turn that waits for another one of its session longer than this begins its stream with a keep-alive."""
LOOK_UP_S = 1.0
"""Time enough to learn that there is no such run, or that it is over; a stream that is resumed opens no later."""


async def answer_of(events: AsyncGenerator[RunEvent, None], context: Context) -> Response:
    """What the run ends with, as one JSON body.

    Raises:
        RunCancelled: it ends without an answer.
    """
    last = await end_of(events, context)
    return failure_response(last.error) if isinstance(last, Failed) else marked(json_response(last), last)


async def end_of(events: AsyncGenerator[RunEvent, None], context: Context) -> Answer | Failed:
    """What the run ends with.

    Raises:
        RunCancelled: it ends without an answer.
    """
    async with time_limit(answer_timeout_s(context)), aclosing(events):
        async for event in events:
            match event.data:
                case Answer() | Failed() as last:
                    return last
                case Cancelled():
                    raise RunCancelled(CANCELLED)
    raise Internal("The run ended without its last event")


def marked(response: Response, answer: Answer) -> Response:
    """A header tells a proxy or a probe, which reads no body, what the answer was made without."""
    if answer.degraded:
        response.headers[DEGRADED] = _NO_HEADER.sub("?", ", ".join(answer.degraded))
    return response


async def stream_of(events: AsyncGenerator[RunEvent, None], context: Context) -> Response:
    """A new stream: what fails before its first frame is a status, a run that does so included."""
    return await _opened(events, context, FIRST_EVENT_S, failed_is_status=True)


async def resumed(events: AsyncGenerator[RunEvent, None], context: Context) -> Response:
    """The rest of a stream: the same frames, one that tells of a failed run included; 204 where nothing is left."""
    return await _opened(events, context, LOOK_UP_S, failed_is_status=False)


async def _opened(
    events: AsyncGenerator[RunEvent, None], context: Context, wait_s: float, *, failed_is_status: bool
) -> Response:
    """The first event is awaited here for a while, where a failure can still become a status."""
    async with AsyncExitStack() as undo:
        following = Following(events)
        undo.push_async_callback(following.close)
        left_s = answer_timeout_s(context)
        first = await following.next(min(left_s, wait_s))
        if following.ended:
            return Response(status_code=204)
        if first is None and left_s <= wait_s:
            raise DeadlineExceeded("The request's time ran out")
        if failed_is_status and first is not None and isinstance(first.data, Failed):
            return failure_response(first.data.error)
        undo.pop_all()
    return EventStream(frames(following, first, context), following)
