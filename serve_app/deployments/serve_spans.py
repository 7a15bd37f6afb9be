"""Joins Ray Serve's own spans and those of a turn into one trace.

Where `tracing_config` of `serve_config.yaml` is on, Serve makes a span for each request that a replica handles and for
each call between replicas. The turn's root becomes a child of the first; Serve's spans of a call become children of the
turn's span that makes the call.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import MutableHeaders

from serve_app.observability.traceparent import HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp, Receive, Scope, Send

_PROPAGATOR = TraceContextTextMapPropagator()


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
    """Makes Serve's spans within the block children of the span that `traceparent` names."""
    if not traceparent or not isinstance(trace.get_tracer_provider(), TracerProvider):
        yield
        return
    token = context.attach(_PROPAGATOR.extract({HEADER: traceparent}))
    try:
        yield
    finally:
        context.detach(token)
