"""`GET` and `DELETE /agent/sessions/{session_id}`: read and delete a conversation."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from serve_app.http.dependencies import ServicesDep, SessionContextDep
from serve_app.http.json_body import JsonRoute, json_response
from serve_app.http.openapi import error_responses
from serve_app.values import Session, Value

router = APIRouter(route_class=JsonRoute, tags=["Conversations"])


class SessionQuery(Value):
    """The query of `GET /agent/sessions/{session_id}`."""

    limit: int = Field(default=100, ge=1, le=100, description="The latest so many exchanges.")


@router.get(
    "/agent/sessions/{session_id}",
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
    summary="Forget a conversation",
    status_code=204,
    response_description="It is forgotten.",
    responses=error_responses(404),
)
async def forget_session(services: ServicesDep, context: SessionContextDep) -> Response:
    """Forget a conversation; the next turn with its name begins a new one."""
    await services.agent.forget(context)
    return Response(status_code=204)
