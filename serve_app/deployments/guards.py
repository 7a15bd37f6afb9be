"""Middleware that Serve's proxies run around every request, where clients reach them without nginx.

`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve_app.deployments.guards:guards` in the environment of `ray start` or
`serve run` switches it on.
"""

from __future__ import annotations

import logging

from starlette.middleware import Middleware

from serve_app.deployments.replica_metrics import RayMetrics
from serve_app.http.middleware.body_limits import BodyBufferMiddleware, SlowReaderMiddleware
from serve_app.http.middleware.headers import ControlHeadersMiddleware
from serve_app.http.middleware.load_shedding import LoadSheddingMiddleware
from serve_app.observability.logs import SERVE

PROXY_LOGGER = f"{SERVE}.serve_app"
"""Below Serve's own logger, whose handlers write the proxy's log file."""


def guards() -> list[Middleware]:
    """The proxies' middleware, the outermost first."""
    return [
        Middleware(ControlHeadersMiddleware),
        Middleware(SlowReaderMiddleware),
        Middleware(BodyBufferMiddleware),
        Middleware(LoadSheddingMiddleware, metrics=RayMetrics(), log=logging.getLogger(PROXY_LOGGER)),
    ]
