"""What does a browser, or a cache on the way, have to know of every response?

HSTS is not among it: only whoever ends TLS knows that there is TLS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.http.paths import path_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

DOCS = "/docs"
_NO_STORE = (b"cache-control", b"no-store")
_NOTHING = b"default-src 'none'; frame-ancestors 'none'"
_DOCS = (
    b"default-src 'none'; script-src https://cdn.jsdelivr.net 'unsafe-inline'; "
    b"style-src https://cdn.jsdelivr.net 'unsafe-inline'; img-src https://fastapi.tiangolo.com data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger's page: two files of a CDN, and a script in the page that knows the address of `/openapi.json`."""


def _headers(policy: bytes) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"content-security-policy", policy),
    )


_OF_API, _OF_DOCS = _headers(_NOTHING), _headers(_DOCS)


class SafeHeaders:
    """Adds the headers to each response, and `no-store` to one that says nothing of caches; pure ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        added = _OF_DOCS if path_of(scope) == DOCS else _OF_API

        async def safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), *added]
                if not any(name.lower() == b"cache-control" for name, _ in headers):
                    headers.append(_NO_STORE)
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, safe)
