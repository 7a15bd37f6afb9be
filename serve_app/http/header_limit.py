"""Are a request's headers few and short enough to be looked at?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.http.errors import answer_to
from serve_app.http.faults import HeadersTooLarge

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from serve_app.config import HttpSettings


class HeaderLimit:
    """Refuses a request with too many headers before anything searches them; pure ASGI."""

    def __init__(self, app: ASGIApp, settings: HttpSettings) -> None:
        self._app = app
        self._most = settings.max_headers
        self._most_bytes = settings.max_header_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        if len(headers) <= self._most and sum(len(name) + len(value) for name, value in headers) <= self._most_bytes:
            await self._app(scope, receive, send)
            return
        told = f"Send at most {self._most} headers, of at most {self._most_bytes} bytes together"
        response = answer_to(HeadersTooLarge(told), scope)
        response.headers["Connection"] = "close"
        await response(scope, receive, send)
