"""Sends turns to LangSmith, by its own client: one LangSmith run for each span.

The turn's run id is the id of its trace there. The first half of a LangSmith run's id is the span's id in OpenTelemetry
(LangSmith's own rule), so one tree has the same ids in both places.

LangSmith's OTLP endpoint is not used: it takes the id of the trace from the span, which is the caller's trace where the
request has a `traceparent`, and a turn is then not found by its run id.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from serve_app.observability.traceparent import SPAN_ID_DIGITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve_app.config import LangSmithTarget
    from serve_app.observability.exporter import Send, SpanData, TraceData
    from serve_app.ports import AttributeValue, SpanKind

TIMEOUT_MS = (3_000, 10_000)
"""To connect, and between two bytes of the answer."""
MAX_TOKENS, MAX_DIGITS = 2**53, 100
RUN_TYPES: dict[SpanKind, str] = {
    "turn": "chain",
    "step": "chain",
    "model": "llm",
    "tool": "tool",
    "retrieval": "retriever",
    "memory": "chain",
}


def create_sender(target: LangSmithTarget) -> Send:
    """A function that sends turns, and raises where LangSmith did not take them."""
    from langsmith import Client
    from urllib3 import Retry

    # `TraceExporter` logs an outage once; the client would log each failure.
    logging.getLogger("langsmith.client").setLevel(logging.CRITICAL)
    failures: list[Exception] = []
    client = Client(
        api_url=target.url,
        api_key=target.key.get_secret_value() if target.key else None,
        workspace_id=target.workspace,
        auto_batch_tracing=False,  # `TraceExporter` is the queue and the thread
        tracing_mode="langsmith",
        tracing_sampling_rate=1,  # sampled already, and failed turns are kept
        omit_traced_runtime_info=True,
        disable_prompt_cache=True,
        retry_config=Retry(0),
        timeout_ms=TIMEOUT_MS,
        info={},  # no request for the server's description before the first trace
        tracing_error_callback=failures.append,
    )

    def send(traces: Sequence[TraceData]) -> None:
        failures.clear()
        # One JSON body: the multipart form of the same takes four times the processor time in Python.
        client.batch_ingest_runs(create=[run for trace in traces for run in trace_runs(trace, target.project)])
        if failures:
            raise failures[0]

    return send


def trace_runs(trace: TraceData, project: str) -> list[dict[str, Any]]:
    """LangSmith's runs of a turn, one for each span, the root first."""
    orders: dict[str, str] = {}
    root, *_ = trace.spans
    return [_span_run(trace, project, span, orders, is_root=span is root) for span in trace.spans]


def _span_run(
    trace: TraceData, project: str, span: SpanData, orders: dict[str, str], *, is_root: bool
) -> dict[str, Any]:
    """The run of one span.

    `orders` maps span ids to dotted orders; the span's own is added to it.
    """
    run_id = str(UUID(span.span_id + trace.run_id[SPAN_ID_DIGITS:]))
    begun, ended = _time(span.begun_ns), _time(span.ended_ns)
    own = f"{begun:%Y%m%dT%H%M%S%f}Z{run_id}"
    parent = {} if is_root else {"parent_run_id": orders[span.parent_id][-len(run_id) :]}
    orders[span.span_id] = own if is_root else f"{orders[span.parent_id]}.{own}"
    return {
        "id": run_id,
        "trace_id": str(UUID(trace.run_id)),
        "dotted_order": orders[span.span_id],
        **parent,
        "session_name": project,
        "name": span.name,
        "run_type": RUN_TYPES[span.kind],
        "start_time": begun.isoformat(),
        "end_time": ended.isoformat(),
        "inputs": _as_object(span.inputs, "messages" if span.kind == "model" else "input"),
        "outputs": {**_as_object(span.outputs, "messages" if span.kind == "model" else "output"), **_usage(span)},
        "error": span.error or None,
        "tags": _tags(span) if is_root else [],
        "extra": {"metadata": _metadata(trace, span)},
    }


def _time(ns: int) -> datetime:
    return datetime.fromtimestamp(ns / 1e9, UTC)


def _as_object(value: Any, name: str) -> dict[str, Any]:
    """The value itself where it is an object, else an object with it under `name`."""
    if value is None:
        return {}
    return value if isinstance(value, dict) else {name: value}


def _usage(span: SpanData) -> dict[str, Any]:
    """The tokens of a model's call; LangSmith adds them up for the turn."""
    if span.kind != "model" or "input_tokens" not in span.attributes:
        return {}
    inputs, outputs = _token_count(span.attributes["input_tokens"]), _token_count(span.attributes.get("output_tokens"))
    return {"usage_metadata": {"input_tokens": inputs, "output_tokens": outputs, "total_tokens": inputs + outputs}}


def _token_count(value: AttributeValue | None) -> int:
    """A count that fits into LangSmith's JSON; 0 where the value is none."""
    text = str(value)
    return min(int(text), MAX_TOKENS) if text.isdecimal() and len(text) < MAX_DIGITS else 0


def _tags(span: SpanData) -> list[str]:
    degraded = span.attributes.get("degraded")
    return [str(span.attributes.get("status", "")), *(degraded if isinstance(degraded, list) else [])]


def _metadata(trace: TraceData, span: SpanData) -> dict[str, Any]:
    """What LangSmith filters by; it groups the turns of a conversation by `session_id`."""
    known = {"run_id": trace.run_id, "otel_trace_id": trace.trace_id, **span.attributes}
    if trace.session_id:
        known["session_id"] = trace.session_id
    if span.kind != "model":
        return known
    provider, model = span.attributes.get("provider"), span.attributes.get("model")
    return {**known, "ls_provider": provider, "ls_model_name": model, "ls_model_type": "chat"}
