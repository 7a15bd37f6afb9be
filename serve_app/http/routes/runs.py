"""The routes of runs: read, follow and cancel a run, and read its logs."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path
from starlette.requests import Request
from starlette.responses import Response

from serve_app.errors import NotFound
from serve_app.http.dependencies import ContextDep, RunContextDep, ServicesDep
from serve_app.http.json_body import JsonRoute, json_response
from serve_app.http.openapi import RUN_EVENTS, RUN_OVER, error_responses
from serve_app.http.request_context import require_single_header
from serve_app.http.run_responses import resume_stream
from serve_app.values import RequestLogLines, RunLogLines, RunRecord

LAST_EVENT_ID = "Last-Event-ID"

router = APIRouter(route_class=JsonRoute)

_LastEventIdHeader = Annotated[
    str,
    Header(
        alias=LAST_EVENT_ID,
        pattern="^[0-9]{1,19}$",
        description="The `id` of the last frame that was seen; 0 for all.",
    ),
]


async def _last_event_id(request: Request, last_event_id: _LastEventIdHeader = "0") -> int:
    require_single_header(request, LAST_EVENT_ID)
    return int(last_event_id)


@router.get(
    "/agent/runs/{run_id}",
    tags=["Runs"],
    summary="Read the state of a run",
    response_model=RunRecord,
    response_description="Its state, with the answer once it has answered, or the error where it failed.",
    responses=error_responses(404),
)
async def read_run(services: ServicesDep, context: RunContextDep) -> Response:
    """Read the state of a run, for a client that polls.

    A run is kept for a day, unless the service is configured otherwise.
    """
    return json_response(await services.runs.run(context, context.run_id))


@router.get(
    "/agent/runs/{run_id}/events",
    tags=["Runs"],
    summary="Follow a run, or resume its stream",
    response_class=Response,
    response_description="The events after `Last-Event-ID`, then those that happen, to the run's last one.",
    responses={200: RUN_EVENTS, 204: RUN_OVER, **error_responses(404)},
)
async def follow_run(
    services: ServicesDep, context: RunContextDep, after: Annotated[int, Depends(_last_event_id)]
) -> Response:
    """Stream the same frames as the turn's own stream, to any number of readers.

    A run can be followed while it runs and afterwards. 204 says that it is over and nothing is left to send; then a
    browser's `EventSource` stops by itself. A run that was begun without `stream: true` has no `token` events.
    """
    return await resume_stream(services.runs.events(context, context.run_id, after), context)


@router.post(
    "/agent/runs/{run_id}/cancel",
    tags=["Runs"],
    summary="Cancel a run",
    response_model=RunRecord,
    response_description="What became of the run.",
    responses=error_responses(404),
)
async def cancel_run(services: ServicesDep, context: RunContextDep) -> Response:
    """Stop the model and the tools within a second; the run ends without an answer.

    A run that has ended stays as it is, so that cancelling again does no harm.
    """
    return json_response(await services.runs.cancel(context, context.run_id))


@router.get(
    "/admin/runs/{run_id}/logs",
    tags=["Admin"],
    summary="Read what the logs say of a run",
    response_model=RunLogLines,
    response_description="The latest two hundred lines, in order.",
    responses=error_responses(404),
)
async def read_run_logs(services: ServicesDep, context: RunContextDep) -> Response:
    """Read the log lines of a run from all processes.

    A line is there half a second after it was written.
    """
    return json_response(await services.run_logs.read(context, context.run_id))


@router.get(
    "/admin/requests/{request_id}/logs",
    tags=["Admin"],
    summary="Read what became of a request",
    response_model=RequestLogLines,
    response_description="The request's run with its log lines, or the line of its refusal.",
    responses=error_responses(404),
)
async def read_request_logs(
    services: ServicesDep,
    context: ContextDep,
    request_id: Annotated[
        str, Path(pattern="^[A-Za-z0-9._-]{1,64}$", description="As the response's `X-Request-Id` has it.")
    ],
) -> Response:
    """Read the log lines of a request's run, or why the request was refused.

    A request that joined a run leads to it too. In a flood of refusals only a sample is logged. A line is there half a
    second after it was written.
    """
    if services.request_logs is None:
        raise NotFound("This service stores no log of requests")
    return json_response(await services.request_logs.read(context, request_id))
