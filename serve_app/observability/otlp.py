"""Sends turns to an OpenTelemetry collector, by OTLP over HTTP.

Exporter and encoder are OpenTelemetry's. Spans follow its semantic conventions for generative AI where those reach.
"""

from __future__ import annotations

import json
import logging
import threading
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
    from opentelemetry.trace import SpanContext

    from serve_app.config import OtlpTarget
    from serve_app.observability.exporter import Send, SpanData, TraceData
    from serve_app.ports import SpanKind

SERVICE = "serve_app"
SHUTDOWN_S = 2.0
OPERATIONS: dict[SpanKind, str] = {
    "turn": "invoke_agent",
    "model": "chat",
    "tool": "execute_tool",
    "retrieval": "retrieval",
}
"""`gen_ai.operation.name`; spans of other kinds have none."""
ATTRIBUTES = {
    "model": "gen_ai.request.model",
    "provider": "gen_ai.provider.name",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "tool": "gen_ai.tool.name",
    "call_id": "gen_ai.tool.call.id",
}
"""Names of the semantic conventions; any other attribute is `serve_app.NAME`."""
CONTENT: dict[SpanKind, tuple[str, str]] = {
    "tool": ("gen_ai.tool.call.arguments", "gen_ai.tool.call.result"),
    "retrieval": ("gen_ai.retrieval.query.text", "gen_ai.retrieval.documents"),
}
"""Where inputs and outputs stand; those of other kinds are messages."""


def create_sender(target: OtlpTarget) -> Send:
    """A function that sends turns, and raises `ConnectionError` where the collector did not take them."""
    from opentelemetry.exporter.otlp.proto.http import trace_exporter
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.util.re import parse_env_headers

    # `TraceExporter` logs an outage once; the client would log each failure.
    logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)
    headers = parse_env_headers(target.headers.get_secret_value(), liberal=True) if target.headers else None
    exporter = trace_exporter.OTLPSpanExporter(endpoint=target.url, headers=headers)

    def send(traces: Sequence[TraceData]) -> None:
        spans = [_readable_span(trace, span) for trace in traces for span in trace.spans]
        if exporter.export(spans) is not SpanExportResult.SUCCESS:
            raise ConnectionError(target.url)

    return send


def serve_spans() -> list[SpanProcessor]:
    """Span processors for Ray Serve's own spans: they go to the same collector.

    For `tracing_config.exporter_import_path` of `serve_config.yaml`.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    class PromptBatchSpanProcessor(BatchSpanProcessor):
        """Shuts down within `SHUTDOWN_S`, where the SDK waits up to 30 s."""

        def shutdown(self) -> None:
            thread = threading.Thread(target=super().shutdown, daemon=True)
            thread.start()
            thread.join(SHUTDOWN_S)

    return [PromptBatchSpanProcessor(OTLPSpanExporter())]


def span_attributes(trace: TraceData, span: SpanData) -> dict[str, Any]:
    """The span's attributes by the semantic conventions for generative AI."""
    known: dict[str, Any] = {"serve_app.run_id": trace.run_id}
    if trace.session_id:
        known["gen_ai.conversation.id"] = trace.session_id
    if operation := OPERATIONS.get(span.kind):
        known["gen_ai.operation.name"] = operation
    if span.kind == "turn":
        known["gen_ai.agent.name"] = SERVICE
    if span.error:
        known["error.type"] = span.error.partition(":")[0]
    own = {ATTRIBUTES.get(name, f"serve_app.{name}"): value for name, value in span.attributes.items()}
    return {**known, **own, **_content_attributes(span)}


def messages_of_parts(value: Any, role: str) -> list[dict[str, Any]] | None:
    """OpenAI messages as `gen_ai` messages of parts; a text becomes one of `role`."""
    if value is None:
        return None
    messages = value if isinstance(value, list) else [{"role": role, "content": value}]
    return [{"role": each.get("role", role), "parts": _message_parts(each)} for each in messages]


def _readable_span(trace: TraceData, span: SpanData) -> ReadableSpan:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanKind as OtelKind
    from opentelemetry.trace import Status, StatusCode

    operation = OPERATIONS.get(span.kind)
    return ReadableSpan(
        name=f"{operation} {span.name}" if operation else span.name,
        context=_span_context(trace, span.span_id),
        parent=_span_context(trace, span.parent_id) if span.parent_id else None,
        resource=_resource(),
        attributes=span_attributes(trace, span),
        kind=OtelKind.CLIENT if span.kind == "model" else OtelKind.INTERNAL,
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
        start_time=span.begun_ns,
        end_time=span.ended_ns,
        instrumentation_scope=InstrumentationScope(SERVICE),
    )


def _span_context(trace: TraceData, span_id: str) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(
        int(trace.trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )


@cache
def _resource() -> Resource:
    """The resource of `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, with our name where they give none."""
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    resource = Resource.create()
    named = not str(resource.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service")
    return resource if named else resource.merge(Resource({SERVICE_NAME: SERVICE}))


def _content_attributes(span: SpanData) -> dict[str, str]:
    if span.kind in CONTENT:
        names = CONTENT[span.kind]
        sides = [_as_text(span.inputs), _as_text(span.outputs)]
    else:
        names = ("gen_ai.input.messages", "gen_ai.output.messages")
        inputs, outputs = messages_of_parts(span.inputs, "user"), messages_of_parts(span.outputs, "assistant")
        sides = [_as_text(inputs), _as_text(outputs)]
    return {name: side for name, side in zip(names, sides, strict=True) if side}


def _as_text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _message_parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    if message.get("role") == "tool":
        return [{"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content}]
    blocks = content if isinstance(content, list) else [content] if content else []
    calls = message.get("tool_calls") or []
    return [*(_text_part(each) for each in blocks), *(_tool_call_part(each) for each in calls)]


def _text_part(block: Any) -> dict[str, Any]:
    content = block.get("text", "") if isinstance(block, dict) else str(block)
    return {"type": "text", "content": content}


def _tool_call_part(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function", {})
    return {
        "type": "tool_call",
        "id": call.get("id"),
        "name": function.get("name"),
        "arguments": function.get("arguments"),
    }
