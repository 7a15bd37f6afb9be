"""How does an OpenTelemetry collector learn of a turn?

By OTLP over HTTP. The spans are made when the turn has ended, with the ids, parents and times that were recorded: the
exporter is OpenTelemetry's own, its tracer and its context are not used, so that nothing here depends on which task
runs in which context.
"""

from __future__ import annotations

import json
import logging
import threading
from functools import cache
from typing import TYPE_CHECKING, Any

from serve_app.observability.messages import in_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
    from opentelemetry.trace import SpanContext

    from serve_app.config import OtlpTarget
    from serve_app.observability.export import Span, Trace
    from serve_app.observability.exporter import Send
    from serve_app.ports import SpanKind

SERVICE = "serve_app"
CLOSE_S = 2.0
OPERATIONS: dict[SpanKind, str] = {
    "turn": "invoke_agent",
    "model": "chat",
    "tool": "execute_tool",
    "retrieval": "retrieval",
}
"""`gen_ai.operation.name`; the spans of other kinds have none."""
ATTRIBUTES = {
    "model": "gen_ai.request.model",
    "provider": "gen_ai.provider.name",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "tool": "gen_ai.tool.name",
    "call_id": "gen_ai.tool.call.id",
}
"""What the semantic conventions have a name for; other facts are `serve_app.NAME`."""
CONTENT: dict[SpanKind, tuple[str, str]] = {
    "tool": ("gen_ai.tool.call.arguments", "gen_ai.tool.call.result"),
    "retrieval": ("gen_ai.retrieval.query.text", "gen_ai.retrieval.documents"),
}


def sender(target: OtlpTarget) -> Send:
    """Sends turns; raises where the collector did not take them."""
    from opentelemetry.exporter.otlp.proto.http import trace_exporter
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.util.re import parse_env_headers

    # The outbox says once what the exporter says each time.
    logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)
    headers = parse_env_headers(target.headers.get_secret_value(), liberal=True) if target.headers else None
    exporter = trace_exporter.OTLPSpanExporter(endpoint=target.url, headers=headers)

    def send(traces: Sequence[Trace]) -> None:
        spans = [_readable(trace, span) for trace in traces for span in trace.spans]
        if exporter.export(spans) is not SpanExportResult.SUCCESS:
            raise ConnectionError(target.url)

    return send


def serve_spans() -> list[SpanProcessor]:
    """For `tracing_config.exporter_import_path` of `serve_config.yaml`: Serve's own spans go to the same collector."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    class Hasty(BatchSpanProcessor):
        """Ends in time: the process would wait half a minute for a collector that is away."""

        def shutdown(self) -> None:
            ending = threading.Thread(target=super().shutdown, daemon=True)
            ending.start()
            ending.join(CLOSE_S)

    return [Hasty(OTLPSpanExporter())]


def _readable(trace: Trace, span: Span) -> ReadableSpan:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanKind as OtelKind
    from opentelemetry.trace import Status, StatusCode

    operation = OPERATIONS.get(span.kind)
    return ReadableSpan(
        name=f"{operation} {span.name}" if operation else span.name,
        context=_context(trace, span.span_id),
        parent=_context(trace, span.parent_id) if span.parent_id else None,
        resource=_resource(),
        attributes=attributes(trace, span),
        kind=OtelKind.CLIENT if span.kind == "model" else OtelKind.INTERNAL,
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
        start_time=span.begun_ns,
        end_time=span.ended_ns,
        instrumentation_scope=InstrumentationScope(SERVICE),
    )


def _context(trace: Trace, span_id: str) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(
        int(trace.trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )


@cache
def _resource() -> Resource:
    """What `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say, and our name where they give none."""
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    resource = Resource.create()
    named = not str(resource.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service")
    return resource if named else resource.merge(Resource({SERVICE_NAME: SERVICE}))


def attributes(trace: Trace, span: Span) -> dict[str, Any]:
    """What the span says of itself, by OpenTelemetry's semantic conventions for generative AI where they reach."""
    known: dict[str, Any] = {"serve_app.run_id": trace.run_id}
    if trace.session_id:
        known["gen_ai.conversation.id"] = trace.session_id
    if operation := OPERATIONS.get(span.kind):
        known["gen_ai.operation.name"] = operation
    if span.kind == "turn":
        known["gen_ai.agent.name"] = SERVICE
    if span.error:
        known["error.type"] = span.error.partition(":")[0]
    facts = {ATTRIBUTES.get(name, f"serve_app.{name}"): fact for name, fact in span.attributes.items()}
    return {**known, **facts, **_content(span)}


def _content(span: Span) -> dict[str, str]:
    if span.kind in CONTENT:
        names = CONTENT[span.kind]
        sides = [_written(span.inputs), _written(span.outputs)]
    else:
        names = ("gen_ai.input.messages", "gen_ai.output.messages")
        sides = [_written(in_parts(span.inputs, "user")), _written(in_parts(span.outputs, "assistant"))]
    return {name: side for name, side in zip(names, sides, strict=True) if side}


def _written(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)
