"""Headers: request ids, their size limit, CORS, security headers, Ray Serve's control headers."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware

from serve_app.errors import HeadersTooLarge, OriginRefused
from serve_app.http.errors import SHOULD_RETRY, error_response
from serve_app.http.request_context import CACHE_CONTROL, REQUEST_ID, path_of, set_request_id
from serve_app.observability.logs import log_context

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serve_app.config import HttpSettings

CONTROL_HEADERS = frozenset(
    {
        b"x_request_timeout_seconds",  # when Serve gives up the response; 0 is never
        b"x_request_disconnect_disabled",  # whether Serve checks that the client is still connected
        b"x_session_id",  # which replica is called
        b"serve_multiplexed_model_id",  # likewise
    }
)
"""Headers by which a client would steer Ray Serve, with `_` for `-`: Serve accepts some of them either way."""
DOCS = "/docs"

_VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NO_STORE = (b"cache-control", b"no-store")
_API_POLICY = b"default-src 'none'; frame-ancestors 'none'"
_DOCS_POLICY = (
    b"default-src 'none'; script-src https://cdn.jsdelivr.net 'unsafe-inline'; "
    b"style-src https://cdn.jsdelivr.net 'unsafe-inline'; img-src https://fastapi.tiangolo.com data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""For Swagger's page: two files of a CDN, and an inline script that knows the address of `/openapi.json`."""
_CORS_METHODS = ("GET", "POST", "DELETE")
_STAINLESS = (
    *("Arch", "Async", "Custom-Poll-Interval", "Helper-Method", "Lang", "OS", "Package-Version", "Poll-Helper"),
    *("Retry-Count", "Runtime", "Runtime-Version", "Timeout"),
)
"""Headers in which OpenAI's client for browsers describes itself."""
_CORS_REQUEST_HEADERS = (
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
_CORS_RESPONSE_HEADERS = ("Location", "Preference-Applied", "Retry-After", "X-Degraded", SHOULD_RETRY, REQUEST_ID)
_CORS_MAX_AGE_S = 600


class RequestIdMiddleware:
    """Takes the client's request id, or makes one, and sends it with every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = sent if _VALID_REQUEST_ID.fullmatch(sent) else uuid4().hex
        set_request_id(scope, request_id)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        with log_context({"request_id": request_id}):
            await self._app(scope, receive, send_with_id)


class RequestIdEchoMiddleware:
    """Removes the request id from a response to which Ray Serve adds the same one.

    Serve adds the id in the request's headers: the client's, or a new one of Serve's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_once(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get(REQUEST_ID) == Headers(scope=scope).get(REQUEST_ID):
                    del headers[REQUEST_ID]
            await send(message)

        await self._app(scope, receive, send_once)


class HeaderLimitMiddleware:
    """Refuses a request with too many or too long headers before anything searches them."""

    def __init__(self, app: ASGIApp, settings: HttpSettings) -> None:
        self._app = app
        self._max_headers = settings.max_headers
        self._max_bytes = settings.max_header_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        size_bytes = sum(len(name) + len(value) for name, value in headers)
        if len(headers) <= self._max_headers and size_bytes <= self._max_bytes:
            await self._app(scope, receive, send)
            return
        message = f"Send at most {self._max_headers} headers, of at most {self._max_bytes} bytes together"
        response = error_response(HeadersTooLarge(message), scope)
        response.headers["Connection"] = "close"
        await response(scope, receive, send)


class CrossOriginMiddleware(CORSMiddleware):
    """Starlette's CORS for configured origins, without cookies; a refusal has the service's error body."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=_CORS_METHODS,
            allow_headers=_CORS_REQUEST_HEADERS,
            expose_headers=_CORS_RESPONSE_HEADERS,
            max_age=_CORS_MAX_AGE_S,
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


class SecurityHeadersMiddleware:
    """Adds security headers for browsers, and `no-store` where a response says nothing of caches.

    HSTS is not among them: only the server that ends TLS knows that there is TLS.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        policy = _DOCS_POLICY if path_of(scope) == DOCS else _API_POLICY
        added = (
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"content-security-policy", policy),
        )

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), *added]
                if not any(name.lower() == b"cache-control" for name, _ in headers):
                    headers.append(_NO_STORE)
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_secured)


class ControlHeadersMiddleware:
    """Removes the headers by which a client would steer Ray Serve, before Serve reads them.

    Serve reads them before the application does. nginx removes them (`configs/nginx/`); this does so in Serve's own
    proxies.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"}:
            headers = [each for each in scope["headers"] if each[0].lower().replace(b"-", b"_") not in CONTROL_HEADERS]
            scope = {**scope, "headers": headers}
        await self._app(scope, receive, send)
