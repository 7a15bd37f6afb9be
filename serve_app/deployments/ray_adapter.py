"""Adapts Ray Serve to ASGI and to our traces; uses private parts of Ray.

An upgrade of Ray is checked here first. Ray has no public name for `DROP_ACCESS_LOG` and for what the two functions
below it read.

Where `tracing_config` of `serve_config.yaml` is on, Serve makes a span for each request that a replica handles and for
each call between replicas. Here they and the spans of a turn become one trace: the turn's root is a child of the first,
Serve's spans of a call are children of the turn's span that makes the call.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import ray
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from ray.exceptions import TaskCancelledError
from ray.serve._private import constants
from ray.serve._private.logging_utils import log_access_log_filter
from starlette.datastructures import MutableHeaders

from serve_app.observability.traceparent import HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

DROP_ACCESS_LOG = log_access_log_filter
"""Serve's filter against its access log: Serve adds it to handlers, and only its identity tells that it did."""
_PROPAGATOR = TraceContextTextMapPropagator()


def is_ha_proxy_enabled() -> bool:
    """Return whether Serve runs HAProxy, which binds all addresses, whatever `http_options.host` says."""
    return bool(constants.RAY_SERVE_ENABLE_HA_PROXY)


def get_serve_host() -> str | None:
    """Return the address that the running Serve binds; None if none runs.

    Serve binds its port before it builds an application. Its public status does not have the address.
    """
    from ray.serve.context import _get_global_client

    if not ray.is_initialized():
        return None
    client = _get_global_client(raise_if_no_controller_running=False)
    host: str | None = client.http_config.host if client else None
    return host


class ClientDisconnectMiddleware:
    """Reports a client that disconnects within its body as ASGI does; Serve raises `TaskCancelledError` instead."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_or_disconnect() -> Message:
            try:
                return await receive()
            except TaskCancelledError:
                return {"type": "http.disconnect"}

        await self._app(scope, receive_or_disconnect, send)


class ServeSpanMiddleware:
    """Sets the request's `traceparent` to Serve's span of the request; pure ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        if scope["type"] == "http" and HEADER in carrier:
            scope = {**scope, "headers": list(scope["headers"])}
            MutableHeaders(scope=scope)[HEADER] = carrier[HEADER]
        await self._app(scope, receive, send)


@contextmanager
def use_trace_context(traceparent: str) -> Iterator[None]:
    """Make Serve's spans within the block children of the span that `traceparent` names."""
    if not traceparent or not isinstance(trace.get_tracer_provider(), TracerProvider):
        yield
        return
    token = context.attach(_PROPAGATOR.extract({HEADER: traceparent}))
    try:
        yield
    finally:
        context.detach(token)
