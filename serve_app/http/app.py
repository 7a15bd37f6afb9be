"""The ASGI application: its routes, and the middleware around them in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware import Middleware

from serve_app.http.admission import AdmissionMiddleware, RateLimitMiddleware
from serve_app.http.auth import AuthenticationMiddleware
from serve_app.http.errors import DEFAULT_REDACTOR, UnhandledErrorMiddleware, add_error_handlers
from serve_app.http.middleware.body_limits import BodyLimitMiddleware, EarlyRejection, SlowReaderMiddleware
from serve_app.http.middleware.headers import (
    CrossOriginMiddleware,
    HeaderLimitMiddleware,
    RequestIdMiddleware,
    SecurityHeadersMiddleware,
)
from serve_app.http.middleware.telemetry import RefusalLogMiddleware, ResponseMetricsMiddleware
from serve_app.http.openai import routes as openai
from serve_app.http.openapi import DESCRIPTION, TAGS, describe_authentication
from serve_app.http.routes import (
    api_keys,
    chat,
    fault_injection,
    feedback,
    health,
    knowledge,
    runs,
    sessions,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve_app.config import HttpSettings
    from serve_app.http.dependencies import Services
    from serve_app.observability.redaction import Redactor

ROUTES = (chat, openai, runs, sessions, knowledge, feedback, fault_injection, api_keys, health)
"""The modules with routes; each has a `router`."""


def create_api(
    services: Services,
    settings: HttpSettings,
    turn_timeout_s: float,
    redactor: Redactor = DEFAULT_REDACTOR,
    outer: Sequence[Middleware] = (),
) -> FastAPI:
    """Make the application; `outer` is middleware of the server, around all other."""
    api = FastAPI(
        title="serve_app",
        version="1",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"operation_spans": False, "metrics": False, "logs": False},  # a span for a request, and no more
        middleware=[*outer, *api_middleware(services, settings)],
    )
    api.state.services = services
    api.state.startup = health.Startup()
    api.state.turn_timeout_s = turn_timeout_s
    for module in ROUTES:
        # Not `include_router`: it hides the routes' paths and methods from errors and metrics, and matches each twice.
        api.router.routes += module.router.routes
    add_error_handlers(api, redactor)
    if services.authenticator:
        describe_authentication(api)
    return api


def api_middleware(services: Services, settings: HttpSettings) -> list[Middleware]:
    """The middleware of every request, the outermost first."""
    reject = EarlyRejection()
    listed: list[Middleware | None] = [
        Middleware(SlowReaderMiddleware),
        Middleware(ResponseMetricsMiddleware, metrics=services.metrics),
        Middleware(SecurityHeadersMiddleware),
        Middleware(RequestIdMiddleware),
        Middleware(
            RefusalLogMiddleware,
            metrics=services.metrics,
            store=services.request_logs,
            keys_required=services.authenticator is not None,
        ),
        Middleware(HeaderLimitMiddleware, settings=settings),
        Middleware(CrossOriginMiddleware, origins=settings.cors_origins) if settings.cors_origins else None,
        Middleware(UnhandledErrorMiddleware),
        Middleware(AuthenticationMiddleware, authenticator=services.authenticator, reject=reject)
        if services.authenticator
        else None,
        Middleware(RateLimitMiddleware, admission=services.admission, limiter=services.limiter),
        Middleware(BodyLimitMiddleware, settings=settings, reject=reject),
        Middleware(AdmissionMiddleware, admission=services.admission) if services.admission else None,
    ]
    return [each for each in listed if each]
