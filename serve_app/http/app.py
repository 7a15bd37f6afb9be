"""The ASGI application: its routes, and the middleware around them in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware import Middleware

from serve_app.http.auth import AuthenticationMiddleware, describe_authentication
from serve_app.http.errors import DEFAULT_REDACTOR, UnhandledErrorMiddleware, add_error_handlers
from serve_app.http.json_body import JsonRoute
from serve_app.http.middleware.admission import AdmissionMiddleware, RateLimitMiddleware
from serve_app.http.middleware.cors import CrossOriginMiddleware
from serve_app.http.middleware.headers import HeaderLimitMiddleware, RequestIdMiddleware, SecurityHeadersMiddleware
from serve_app.http.middleware.request_body import BodyLimitMiddleware, EarlyRejection
from serve_app.http.middleware.response_metrics import ResponseMetricsMiddleware
from serve_app.http.middleware.slow_readers import SlowReaderMiddleware
from serve_app.http.openai.routes import add_openai
from serve_app.http.request_context import RequestContexts
from serve_app.http.routes.admin import add_admin
from serve_app.http.routes.api_keys import add_api_keys
from serve_app.http.routes.chat import add_chat
from serve_app.http.routes.fault_injection import add_rehearsal
from serve_app.http.routes.feedback import add_feedback
from serve_app.http.routes.health import add_health
from serve_app.http.routes.knowledge import add_knowledge
from serve_app.http.routes.metrics import add_metrics
from serve_app.http.routes.run_lines import add_run_lines
from serve_app.http.routes.runs import add_runs
from serve_app.http.routes.sessions import add_sessions
from serve_app.http.routes.tenants import add_tenants

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve_app.config import HttpSettings
    from serve_app.http.services import Services
    from serve_app.observability.redaction import Redactor

_DESCRIPTION = """\
An agent that answers questions with the help of tools and of your documents, in the language of the question.

* Bodies are JSON in UTF-8, with `Content-Type: application/json`; an unknown field is refused, not ignored.
* Every response has an `X-Request-Id`: the one you sent (letters, digits, `.`, `_` and `-`, at most 64) or a new one.
* Every error has the same body: `{"error": {"code", "message", "retryable", "request_id"}}`. Act on `code` and
  `retryable`; `message` is for people. Below `/v1/` it is OpenAI's, with the same codes. A 429 or
  503 says in `Retry-After` after how many seconds to come back.
* A turn that was sent with an `Idempotency-Key` may be sent again: the service runs it once. A client that leaves stops
  nothing; a stream that broke off goes on at `/agent/runs/{run_id}/events`, after the frame named by `Last-Event-ID`.
"""
_TAGS = [
    {"name": "Conversations", "description": "Turns, and what is remembered of them."},
    {"name": "OpenAI", "description": "The same agent, for whatever speaks OpenAI's chat completions."},
    {"name": "Runs", "description": "Each turn is one run; its events are kept, and outlive the connection."},
    {"name": "Knowledge", "description": "The documents that answers may cite."},
    {"name": "Admin", "description": "For those who run the service."},
    {"name": "Health", "description": "For load balancers and operators."},
]


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
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"operation_spans": False, "metrics": False, "logs": False},  # a span for a request, and no more
        middleware=[*outer, *api_middleware(services, settings)],
    )
    api.router.route_class = JsonRoute
    contexts = RequestContexts(turn_timeout_s)
    add_chat(api, services, contexts)
    add_openai(api, services, contexts)
    add_runs(api, services.runs, contexts)
    add_sessions(api, services.agent, contexts)
    add_knowledge(api, services.retriever, contexts)
    add_feedback(api, services.feedback, contexts, services.metrics)
    add_admin(api, services.agent, contexts)
    add_run_lines(api, services.lines, contexts)
    add_rehearsal(api, services, contexts)
    add_api_keys(api, services, contexts)
    add_tenants(api, services.keys, contexts)
    add_health(api, services)
    add_metrics(api, services.read_node_pages)
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
