"""Responses that give a run's events: one JSON answer, or a stream."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING

from starlette.responses import Response

from serve_app.errors import DeadlineExceeded, Internal, RunCancelled
from serve_app.http.errors import failure_response
from serve_app.http.json_body import json_response
from serve_app.http.request_context import answer_timeout_s, time_limit
from serve_app.http.sse import EventStreamResponse, RunFollower, run_frames
from serve_app.values import Answer, Cancelled, Failed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from serve_app.values import Context, RunEvent

DEGRADED = "X-Degraded"
_NOT_IN_HEADERS = re.compile(r"[^ -~]")
"""Characters that no header carries; the name of a tool may have them."""
CANCELLED = "The run was cancelled, so that there is no answer"
FIRST_EVENT_S = 10.0
"""A turn that waits longer for the session's other turn begins its stream with a keep-alive."""
LOOK_UP_S = 1.0
"""Enough to find that there is no such run, or that it is over; a resumed stream opens no later."""


async def answer_response(events: AsyncGenerator[RunEvent, None], context: Context) -> Response:
    """The run's last event as one JSON body.

    Raises:
        RunCancelled: the run ends without an answer.
    """
    last = await read_last(events, context)
    return failure_response(last.error) if isinstance(last, Failed) else add_degraded_header(json_response(last), last)


async def read_last(events: AsyncGenerator[RunEvent, None], context: Context) -> Answer | Failed:
    """The data of the run's last event.

    Raises:
        RunCancelled: the run ends without an answer.
    """
    async with time_limit(answer_timeout_s(context)), aclosing(events):
        async for event in events:
            match event.data:
                case Answer() | Failed() as last:
                    return last
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
