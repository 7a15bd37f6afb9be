"""May a page of another origin call the API from a browser?"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware

from serve_app.http.errors import answer_to
from serve_app.http.faults import OriginRefused
from serve_app.http.openai.errors import AGAIN
from serve_app.http.request_ids import HEADER

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

_METHODS = ("GET", "POST", "DELETE")
_STAINLESS = (
    *("Arch", "Async", "Custom-Poll-Interval", "Helper-Method", "Lang", "OS", "Package-Version", "Poll-Helper"),
    *("Retry-Count", "Runtime", "Runtime-Version", "Timeout"),
)
"""What OpenAI's own client for browsers says of itself."""
_TAKEN = (
    "Authorization",
    "Cache-Control",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "Prefer",
    "Traceparent",
    HEADER,
    *(f"X-Stainless-{each}" for each in _STAINLESS),
)
_SHOWN = ("Location", "Preference-Applied", "Retry-After", "X-Degraded", AGAIN, HEADER)
_KEPT_S = 600


class CrossOrigin(CORSMiddleware):
    """Starlette's, for listed origins and without cookies; what it refuses has the service's error body."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=_TAKEN,
            expose_headers=_SHOWN,
            max_age=_KEPT_S,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "OPTIONS":
            await super().__call__(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if "Origin" not in headers or "Access-Control-Request-Method" not in headers:
            await super().__call__(scope, receive, send)
            return
        response: Response = self.preflight_response(headers)
        if response.status_code != HTTPStatus.OK:
            told = (
                "Pages of this origin may not send this method with these headers; http.cors_origins lists the origins"
            )
            response = answer_to(OriginRefused(told), scope)
        await response(scope, receive, send)
