"""Which routes does the service have, and what does every request pass on its way to one?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI

from serve_app.http.admission import Admitted, Screened
from serve_app.http.auth import Authenticated
from serve_app.http.body_limit import BodyLimit
from serve_app.http.contexts import Contexts
from serve_app.http.cross_origin import CrossOrigin
from serve_app.http.errors import REDACTOR, LastResort, handle_errors
from serve_app.http.header_limit import HeaderLimit
from serve_app.http.json_body import JsonRoute
from serve_app.http.measuring import Measured
from serve_app.http.openai.routes import add_openai
from serve_app.http.refusing import Refusing
from serve_app.http.request_ids import RequestIds
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
from serve_app.http.safe_headers import SafeHeaders
from serve_app.http.security import describe_keys
from serve_app.http.slow_readers import SlowReaders

if TYPE_CHECKING:
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
    services: Services, settings: HttpSettings, turn_timeout_s: float, redactor: Redactor = REDACTOR
) -> FastAPI:
    """The ASGI application over these services."""
    api = FastAPI(
        title="serve_app",
        version="1",
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"operation_spans": False, "metrics": False, "logs": False},  # a span for a request, and no more
    )
    api.router.route_class = JsonRoute
    contexts = Contexts(turn_timeout_s)
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
    handle_errors(api, redactor)
    refuse = Refusing()
    if services.admission:
        api.add_middleware(Admitted, admission=services.admission)
    api.add_middleware(BodyLimit, settings=settings, refuse=refuse)
    api.add_middleware(Screened, admission=services.admission, limiter=services.limiter)
    if services.gate:
        api.add_middleware(Authenticated, gate=services.gate, refuse=refuse)
        describe_keys(api)
    api.add_middleware(LastResort)
    if settings.cors_origins:
        api.add_middleware(CrossOrigin, origins=settings.cors_origins)
    api.add_middleware(HeaderLimit, settings=settings)
    api.add_middleware(RequestIds)
    api.add_middleware(SafeHeaders)
    api.add_middleware(Measured, metrics=services.metrics)
    api.add_middleware(SlowReaders)  # the last one added is the outermost
    return api
