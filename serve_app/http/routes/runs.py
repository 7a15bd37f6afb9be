"""How is a run read, followed and cancelled over HTTP?"""

from typing import Annotated

from fastapi import Depends, FastAPI, Header, Path
from starlette.requests import Request
from starlette.responses import Response

from serve_app.http import examples
from serve_app.http.request_context import RequestContexts, answer_timeout_s, require_single_header, time_limit
from serve_app.http.responses import json_response, refusals
from serve_app.http.run_responses import resumed
from serve_app.runs.event_log import RunEventLog
from serve_app.values import RunRecord

HEADER = "Last-Event-ID"

_PATH = "/agent/runs/{run_id}"
_RunId = Annotated[
    str, Path(pattern="^[A-Za-z0-9_-]{1,64}$", description="As the turn's first frame or answer has it.")
]
_LastEventId = Annotated[
    str,
    Header(
        alias=HEADER,
        pattern="^[0-9]{1,19}$",
        description="The `id` of the last frame that was seen; 0 for all.",
    ),
]


def _after(request: Request, last_event_id: _LastEventId = "0") -> int:
    require_single_header(request, HEADER)
    return int(last_event_id)


def add_runs(api: FastAPI, runs: RunEventLog, contexts: RequestContexts) -> None:
    """The routes below `/agent/runs/{run_id}`."""
    _add_read(api, runs, contexts)
    _add_events(api, runs, contexts)
    _add_cancel(api, runs, contexts)


def _add_read(api: FastAPI, runs: RunEventLog, contexts: RequestContexts) -> None:
    @api.get(
        _PATH,
        tags=["Runs"],
        summary="Read the state of a run",
        response_model=RunRecord,
        response_description="Its state, with the answer once it has answered, or the error where it failed.",
        responses=refusals(404),
    )
    async def read(request: Request, run_id: _RunId) -> Response:
        """For a client that polls. A run is kept for a day, unless the service is configured otherwise."""
        context = contexts.of(request, run_id=run_id)
        async with time_limit(answer_timeout_s(context)):
            return json_response(await runs.run(context, run_id))


def _add_events(api: FastAPI, runs: RunEventLog, contexts: RequestContexts) -> None:
    @api.get(
        f"{_PATH}/events",
        tags=["Runs"],
        summary="Follow a run, or resume its stream",
        response_class=Response,
        response_description="The events after `Last-Event-ID`, then those that happen, to the run's last one.",
        responses={200: examples.EVENTS, 204: examples.OVER, **refusals(404)},
    )
    async def events(request: Request, run_id: _RunId, after: Annotated[int, Depends(_after)]) -> Response:
        """The same frames as the turn's own stream, while it runs and afterwards, for any number of readers.

        204 says that the run is over and nothing is left to send; a browser's `EventSource` then stops by itself. A run
        that was begun without `stream: true` has no `token` events.
        """
        context = contexts.of(request, run_id=run_id)
        return await resumed(runs.events(context, run_id, after), context)


def _add_cancel(api: FastAPI, runs: RunEventLog, contexts: RequestContexts) -> None:
    @api.post(
        f"{_PATH}/cancel",
        tags=["Runs"],
        summary="Cancel a run",
        response_model=RunRecord,
        response_description="What became of the run.",
        responses=refusals(404),
    )
    async def cancel(request: Request, run_id: _RunId) -> Response:
        """The model and the tools stop within a second, and the run ends without an answer.

        A run that has ended stays as it is, so that cancelling again does no harm.
        """
        context = contexts.of(request, run_id=run_id)
        async with time_limit(answer_timeout_s(context)):
            return json_response(await runs.cancel(context, run_id))
