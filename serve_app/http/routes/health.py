"""`GET /healthz`, `/readyz` and `/metrics`: for load balancers and Prometheus."""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Literal

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import Response

from serve_app.http.dependencies import ServicesDep
from serve_app.http.errors import result_or_failure
from serve_app.http.json_body import JsonRoute, json_response
from serve_app.http.openapi import error_responses
from serve_app.http.request_context import request_id_of, time_limit
from serve_app.values import DependencyCheck, Failed, Value

OPTIONAL_SERVICE = "retriever"
"""Turns are answered without it."""
STARTUP_S = 120.0
"""For this long after the start, the process is not ready until the optional service has answered once."""
CHECK_TIMEOUT_S = 2.0
"""For the checks of one service, whose own time-outs are longer."""
_METRICS_EXAMPLE = 'ray_serve_app_turns_total{application="serve_app",deployment="Agent",status="success",…} 42.0\n'

router = APIRouter(route_class=JsonRoute, tags=["Health"])


class Health(Value):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(Value):
    """Whether turns can be answered now, and the state of each dependency."""

    ready: bool
    checks: list[DependencyCheck]


@dataclass(slots=True)
class Startup:
    """When this process started, and which services have answered since."""

    started_at: float = field(default_factory=time.monotonic)
    answered: set[str] = field(default_factory=set)

    def is_required(self, name: str) -> bool:
        """Whether readiness needs the service `name` now."""
        starting = name not in self.answered and time.monotonic() - self.started_at < STARTUP_S
        return name != OPTIONAL_SERVICE or starting


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
    startup: Startup = request.app.state.startup
    request_id = request_id_of(request.scope)
    calls = (result_or_failure(_within_timeout(checks()), request_id) for checks in checks_of.values())
    results = await asyncio.gather(*calls)
    checks: list[DependencyCheck] = []
    for name, result in zip(checks_of, results, strict=True):
        if isinstance(result, Failed):  # a service that does not answer is a failed check of its own
            required = startup.is_required(name)
            checks.append(DependencyCheck(name=name, ok=False, reason=result.error.message, required=required))
        else:
            startup.answered.add(name)
            checks += result
    ready = all(check.ok for check in checks if check.required)
    response = json_response(Readiness(ready=ready, checks=checks), 200 if ready else 503)
    if not ready:
        response.headers["Retry-After"] = "1"
    return response


async def _within_timeout(checks: Awaitable[list[DependencyCheck]]) -> list[DependencyCheck]:
    async with time_limit(CHECK_TIMEOUT_S, f"No answer within {CHECK_TIMEOUT_S:.0f} seconds"):
        return await checks


@router.get(
    "/metrics",
    summary="Read the metrics of the whole service",
    response_class=Response,
    response_description="Prometheus's text format.",
    responses={200: {"content": {"text/plain": {"example": _METRICS_EXAMPLE}}}, **error_responses()},
)
async def read_metrics(services: ServicesDep) -> Response:
    """Read the metrics of all nodes.

    Any ingress gives the whole page, so one target is enough. The service's own series begin with `ray_serve_app_`, Ray
    Serve's with `ray_serve_`. `serve_app_scrape_up` is 0 for a node that is not in the page.
    """
    return Response(await services.metrics_page.read(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
