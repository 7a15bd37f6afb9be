"""How is a conversation read and deleted over HTTP?"""

from typing import Annotated

from fastapi import FastAPI, Path, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from serve_app.http.request_context import RequestContexts, answer_timeout_s, time_limit
from serve_app.http.responses import json_response, refusals
from serve_app.ports import Agent
from serve_app.values import Session, SessionId, Value

_PATH = "/agent/sessions/{session_id}"
_SessionId = Annotated[SessionId, Path(description="The conversation's name.")]


class Latest(Value):
    """How much of a conversation is wanted."""

    limit: int = Field(default=100, ge=1, le=100, description="The latest so many exchanges.")


def add_sessions(api: FastAPI, agent: Agent, contexts: RequestContexts) -> None:
    """`GET` and `DELETE /agent/sessions/{session_id}`."""

    @api.get(
        _PATH,
        tags=["Conversations"],
        summary="Read a conversation",
        response_model=Session,
        response_description="Its latest exchanges, oldest first; `turns` counts all that are kept.",
        responses=refusals(404),
    )
    async def read(request: Request, session_id: _SessionId, latest: Annotated[Latest, Query()]) -> Response:
        """Each exchange is one turn: what the user said, the tool calls with their results, and the answer."""
        context = contexts.of(request, session_id)
        async with time_limit(answer_timeout_s(context)):
            return json_response(await agent.session(context, latest.limit))

    @api.delete(
        _PATH,
        tags=["Conversations"],
        summary="Forget a conversation",
        status_code=204,
        response_description="It is forgotten.",
        responses=refusals(404),
    )
    async def forget(request: Request, session_id: _SessionId) -> Response:
        """The next turn with this name begins a new conversation."""
        context = contexts.of(request, session_id)
        async with time_limit(answer_timeout_s(context)):
            await agent.forget(context)
        return Response(status_code=204)
