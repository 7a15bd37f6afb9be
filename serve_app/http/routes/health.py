"""`GET /healthz` and `GET /readyz`: liveness and readiness."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Literal

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serve_app.http.dependencies import ServicesDep
from serve_app.http.errors import result_or_failure
from serve_app.http.json_body import JsonRoute, json_response
from serve_app.http.request_context import request_id_of, time_limit
from serve_app.http.services import Services
from serve_app.values import DependencyCheck, Failed, Value

OPTIONAL_SERVICE = "retriever"
"""Turns are answered without it."""
STARTUP_S = 120.0
"""For so long after the start of this process the optional service is required until it has answered once."""
CHECK_TIMEOUT_S = 2.0
"""For the checks of one service, whose own time-outs are longer."""

router = APIRouter(route_class=JsonRoute, tags=["Health"])


class Health(Value):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(Value):
    """Whether turns can be answered now, and the state of each dependency."""

    ready: bool
    checks: list[DependencyCheck]


@router.get("/healthz", summary="Is the process alive?", response_model=Health)
async def check_liveness() -> Response:
    """Answer without a call of any dependency.

    An outage of a store is no reason to restart this process.
    """
    return json_response(Health())


@router.get(
    "/readyz",
    summary="Is the service ready?",
    response_model=Readiness,
    response_description="Turns are answered; a check that is not ok says what they do without.",
    responses={503: {"model": Readiness, "description": "No turn is answered; a `required` check says why."}},
)
async def check_readiness(request: Request, services: ServicesDep) -> Response:
    """Ask every service for the state of its dependencies."""
    checks_of = {
        "agent": services.agent.checks,
        "retriever": services.retriever.checks,
        "tools": services.tools.checks,
    }
    request_id = request_id_of(request.scope)
    calls = (result_or_failure(_within_timeout(checks()), request_id) for checks in checks_of.values())
    results = await asyncio.gather(*calls)
    checks: list[DependencyCheck] = []
    for name, result in zip(checks_of, results, strict=True):
        if isinstance(result, Failed):  # a service that does not answer is a failed check of its own
            required = _is_required(name, services)
            checks.append(DependencyCheck(name=name, ok=False, reason=result.error.message, required=required))
        else:
            services.answered.add(name)
            checks += result
    ready = all(check.ok for check in checks if check.required)
    response = json_response(Readiness(ready=ready, checks=checks), 200 if ready else 503)
    if not ready:
        response.headers["Retry-After"] = "1"
    return response


def _is_required(name: str, services: Services) -> bool:
    """Whether no turn is answered, or is to be answered yet, without the service `name`."""
    starting = name not in services.answered and time.monotonic() - services.started_at < STARTUP_S
    return name != OPTIONAL_SERVICE or starting


async def _within_timeout(checks: Awaitable[list[DependencyCheck]]) -> list[DependencyCheck]:
    async with time_limit(CHECK_TIMEOUT_S, f"No answer within {CHECK_TIMEOUT_S:.0f} seconds"):
        return await checks
