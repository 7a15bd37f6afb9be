"""What may those ask who run the service?"""

from typing import Annotated

from fastapi import FastAPI, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from serve_app.http.request_context import RequestContexts, answer_timeout_s, time_limit
from serve_app.http.responses import json_response, refusals
from serve_app.ports import Agent
from serve_app.values import SessionSizes, Value


class Largest(Value):
    """How many of the conversations are wanted."""

    limit: int = Field(default=20, ge=1, le=100, description="The largest so many conversations.")


def add_admin(api: FastAPI, agent: Agent, contexts: RequestContexts) -> None:
    """`GET /admin/sessions`."""

    @api.get(
        "/admin/sessions",
        tags=["Admin"],
        summary="List the largest conversations",
        response_model=SessionSizes,
        response_description="Largest first; `counted` says how many were looked at.",
        responses=refusals(),
    )
    async def sizes(request: Request, largest: Annotated[Largest, Query()]) -> Response:
        """What each takes up in Redis, how many of its messages had to be mended, and when it expires."""
        context = contexts.of(request)
        async with time_limit(answer_timeout_s(context)):
            return json_response(await agent.sizes(context, largest.limit))
