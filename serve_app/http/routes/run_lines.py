"""What do the logs of all processes say of one run?"""

from typing import Annotated

from fastapi import FastAPI, Path
from starlette.requests import Request
from starlette.responses import Response

from serve_app.http.request_context import RequestContexts, answer_timeout_s, time_limit
from serve_app.http.responses import json_response, refusals
from serve_app.stores.run_log import RunLogStore
from serve_app.values import RunLogLines

_RunId = Annotated[str, Path(pattern="^[A-Za-z0-9_-]{1,64}$", description="As the turn's answer has it.")]


def add_run_lines(api: FastAPI, lines: RunLogStore, contexts: RequestContexts) -> None:
    """`GET /admin/runs/{run_id}/logs`."""

    @api.get(
        "/admin/runs/{run_id}/logs",
        tags=["Admin"],
        summary="Read what the logs say of a run",
        response_model=RunLogLines,
        response_description="The latest two hundred lines, in order.",
        responses=refusals(404),
    )
    async def listed(request: Request, run_id: _RunId) -> Response:
        """Of the ingress, the agents and the retrievers; a line shows a quarter of a second after it was written."""
        context = contexts.of(request, run_id=run_id)
        async with time_limit(answer_timeout_s(context)):
            return json_response(await lines.read(context, run_id))
