"""The routes for operators: the largest sessions, the logs of a run or request."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import Response

from serve_app.errors import NotFound
from serve_app.http.dependencies import ContextDep, RunContextDep, ServicesDep
from serve_app.http.json_body import JsonRoute, json_response
from serve_app.http.openapi import error_responses
from serve_app.values import RequestLogLines, RunLogLines, SessionSizes, Value

router = APIRouter(route_class=JsonRoute, tags=["Admin"])


class LargestSessionsQuery(Value):
    """The query of `GET /admin/sessions`."""

    limit: int = Field(default=20, ge=1, le=100, description="The largest so many conversations.")


@router.get(
    "/admin/sessions",
    summary="List the largest conversations",
    response_model=SessionSizes,
    response_description="Largest first; `counted` says how many were looked at.",
    responses=error_responses(),
)
async def list_largest_sessions(
    services: ServicesDep, context: ContextDep, query: Annotated[LargestSessionsQuery, Query()]
) -> Response:
    """List the conversations that take up most in Redis.

    Each with its size, the number of messages that had to be repaired, and the time until it expires.
    """
    return json_response(await services.agent.sizes(context, query.limit))


@router.get(
    "/admin/runs/{run_id}/logs",
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
