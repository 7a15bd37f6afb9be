"""Which headers would let a client steer Ray Serve, and how are they kept from it?

Serve reads them where it takes a request, before the application does. nginx drops them (`configs/nginx/`), and so do
Serve's own proxies where they have our `guards`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

CONTROL = frozenset(
    {
        b"x_request_timeout_seconds",  # when Serve gives the response up; 0 is never
        b"x_request_disconnect_disabled",  # whether it looks if the client is still there
        b"x_session_id",  # which replica is asked
        b"serve_multiplexed_model_id",  # likewise
    }
)
"""With `_` for `-`: Serve takes some of them either way."""


class ControlHeaders:
    """Drops them before Serve sees them; pure ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"}:
            kept = [each for each in scope["headers"] if each[0].lower().replace(b"-", b"_") not in CONTROL]
            scope = {**scope, "headers": kept}
        await self._app(scope, receive, send)
