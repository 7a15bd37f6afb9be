"""What do Serve's proxies put around everything, where clients reach them without nginx?

`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve_app.deployments.guards:guards` in the environment of `ray start` or of
`serve run` has them do so.
"""

from __future__ import annotations

from starlette.middleware import Middleware

from serve_app.deployments.metrics import RayMetrics
from serve_app.http.control_headers import ControlHeaders
from serve_app.http.shedding import Shedding
from serve_app.http.slow_readers import SlowReaders
from serve_app.http.whole_bodies import WholeBodies


def guards() -> list[Middleware]:
    """The outermost first."""
    shedding = Middleware(Shedding, metrics=RayMetrics())
    return [Middleware(ControlHeaders), Middleware(SlowReaders), Middleware(WholeBodies), shedding]
