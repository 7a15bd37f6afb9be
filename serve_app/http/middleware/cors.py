"""Cross-origin requests of browsers (CORS)."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware

from serve_app.errors import OriginRefused
from serve_app.http.errors import SHOULD_RETRY, error_response
from serve_app.http.request_context import CACHE_CONTROL, REQUEST_ID

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

_METHODS = ("GET", "POST", "DELETE")
_STAINLESS = (
    *("Arch", "Async", "Custom-Poll-Interval", "Helper-Method", "Lang", "OS", "Package-Version", "Poll-Helper"),
    *("Retry-Count", "Runtime", "Runtime-Version", "Timeout"),
)
"""Headers in which OpenAI's client for browsers describes itself."""
_REQUEST_HEADERS = (
    "Authorization",
    CACHE_CONTROL,
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "Prefer",
    "Traceparent",
    REQUEST_ID,
    *(f"X-Stainless-{each}" for each in _STAINLESS),
)
_RESPONSE_HEADERS = ("Location", "Preference-Applied", "Retry-After", "X-Degraded", SHOULD_RETRY, REQUEST_ID)
_MAX_AGE_S = 600


class CrossOriginMiddleware(CORSMiddleware):
    """Starlette's CORS for configured origins, without cookies; a refusal has the service's error body."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=_REQUEST_HEADERS,
            expose_headers=_RESPONSE_HEADERS,
            max_age=_MAX_AGE_S,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" and scope["method"] == "OPTIONS" else {}
        if "Origin" not in headers or "Access-Control-Request-Method" not in headers:
            await super().__call__(scope, receive, send)
            return
        response: Response = self.preflight_response(Headers(scope=scope))
        if response.status_code != HTTPStatus.OK:
            message = (
                "Pages of this origin may not send this method with these headers; http.cors_origins lists the origins"
            )
            response = error_response(OriginRefused(message), scope)
        await response(scope, receive, send)
