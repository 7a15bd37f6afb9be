"""The routes of sessions: read and forget a conversation, and list the largest ones."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from serve_app.http.dependencies import ContextDep, ServicesDep, SessionContextDep
from serve_app.http.json_body import JsonRoute, json_response
from serve_app.http.openapi import error_responses
from serve_app.values import Session, SessionSizes, Value

router = APIRouter(route_class=JsonRoute)


class SessionQuery(Value):
    """The query of `GET /agent/sessions/{session_id}`."""

    limit: int = Field(default=100, ge=1, le=100, description="How many of the latest exchanges to list.")


class LargestSessionsQuery(Value):
    """The query of `GET /admin/sessions`."""

    limit: int = Field(default=20, ge=1, le=100, description="How many of the largest conversations to list.")


@router.get(
    "/agent/sessions/{session_id}",
    tags=["Conversations"],
    summary="Read a conversation",
    response_model=Session,
    response_description="Its latest exchanges, oldest first; `turns` counts all that are kept.",
    responses=error_responses(404),
)
async def read_session(
    services: ServicesDep, context: SessionContextDep, query: Annotated[SessionQuery, Query()]
) -> Response:
    """Read the latest exchanges of a conversation.

    Each is one turn: the user's message, the tool calls with their results, and the answer.
    """
    return json_response(await services.agent.session(context, query.limit))


@router.delete(
    "/agent/sessions/{session_id}",
    tags=["Conversations"],
    summary="Forget a conversation",
    status_code=204,
    response_description="It is forgotten.",
    responses=error_responses(404),
)
async def forget_session(services: ServicesDep, context: SessionContextDep) -> Response:
    """Forget a conversation; the next turn with its name begins a new one."""
    await services.agent.forget(context)
    return Response(status_code=204)


@router.get(
    "/admin/sessions",
    tags=["Admin"],
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
