"""Is the process alive, and is the service ready to answer?"""

import asyncio
import time
from collections.abc import Awaitable
from typing import Literal

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from serve_app.http.errors import result_or_failure
from serve_app.http.request_context import request_id_of, time_limit
from serve_app.http.responses import json_response
from serve_app.http.services import Services
from serve_app.values import DependencyCheck, Failed, Value

DISPENSABLE = "retriever"
"""The part of the service without which turns are answered."""
STARTING_S = 120.0
"""How long it is waited for all the same after this process began, until it has answered once: it is starting too."""
CHECK_S = 2.0
"""For each part of the service: a probe's own time-out is longer."""


class Health(Value):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(Value):
    """Whether a turn can be answered now, and what stands in its way, or in the way of a whole answer."""

    ready: bool
    checks: list[DependencyCheck]


def add_health(api: FastAPI, services: Services) -> None:
    """`GET /healthz` and `GET /readyz`."""
    begun, heard = time.monotonic(), set[str]()

    def required(part: str) -> bool:
        """Whether no turn is answered, or is to be answered yet, without this part."""
        return part != DISPENSABLE or (part not in heard and time.monotonic() - begun < STARTING_S)

    @api.get("/healthz", tags=["Health"], summary="Is the process alive?", response_model=Health)
    async def healthz() -> Response:
        """Asks nothing of any dependency: an outage of a store is no reason to restart this process."""
        return json_response(Health())

    @api.get(
        "/readyz",
        tags=["Health"],
        summary="Is the service ready?",
        response_model=Readiness,
        response_description="Turns are answered; a check that is not ok says what they do without.",
        responses={503: {"model": Readiness, "description": "No turn is answered; a `required` check says why."}},
    )
    async def readyz(request: Request) -> Response:
        """Asks every part of the service for the state of what it depends on."""
        asked = {"agent": services.agent.checks, "retriever": services.retriever.checks, "tools": services.tools.checks}
        request_id = request_id_of(request.scope)
        told = await asyncio.gather(*(result_or_failure(_asked(checks()), request_id) for checks in asked.values()))
        checks: list[DependencyCheck] = []
        for part, found in zip(asked, told, strict=True):
            if isinstance(found, Failed):  # a part that tells nothing is a failed check of its own
                checks.append(DependencyCheck(name=part, ok=False, reason=found.error.message, required=required(part)))
            else:
                heard.add(part)
                checks += found
        ready = all(check.ok for check in checks if check.required)
        response = json_response(Readiness(ready=ready, checks=checks), 200 if ready else 503)
        if not ready:
            response.headers["Retry-After"] = "1"
        return response


async def _asked(asking: Awaitable[list[DependencyCheck]]) -> list[DependencyCheck]:
    async with time_limit(CHECK_S, f"No answer within {CHECK_S:.0f} seconds"):
        return await asking
