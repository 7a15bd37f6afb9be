"""How does LangSmith learn of a turn?

By its own client and its own form, one request for several turns: a run of LangSmith for each span. The turn's run id
is the id of its trace there. A span's first half of an id is OpenTelemetry's, by LangSmith's own rule, so that one tree
stands under the same ids in both places.
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
    from serve_app.observability.export import Span, Trace
    from serve_app.observability.exporter import Send
    from serve_app.ports import AttributeValue, SpanKind

TIMEOUT_MS = (3_000, 10_000)
"""To connect, and between two bytes of the answer."""
MOST_TOKENS, MOST_DIGITS = 2**53, 100
RUN_TYPES: dict[SpanKind, str] = {
    "turn": "chain",
    "step": "chain",
    "model": "llm",
    "tool": "tool",
    "retrieval": "retriever",
    "memory": "chain",
}


def disable_langchain_tracing() -> None:
    """Switch LangChain's own tracing off in this process: it would tell of each call once more, as a trace apart.

    Code that wants it on all the same says so by LangSmith's `tracing_context(enabled=True)`.
    """
    from langsmith import configure

    configure(enabled=False)


def sender(target: LangSmithTarget) -> Send:
    """Sends turns; raises where LangSmith did not take them."""
    from langsmith import Client
    from urllib3 import Retry

    logging.getLogger("langsmith.client").setLevel(logging.CRITICAL)  # the outbox says once what it says each time
    failures: list[Exception] = []
    client = Client(
        api_url=target.url,
        api_key=target.key.get_secret_value() if target.key else None,
        workspace_id=target.workspace,
        auto_batch_tracing=False,  # the outbox is the queue and the thread
        tracing_mode="langsmith",
        tracing_sampling_rate=1,  # sampled already, and failures are kept
        omit_traced_runtime_info=True,
        disable_prompt_cache=True,
        retry_config=Retry(0),
        timeout_ms=TIMEOUT_MS,
        info={},  # asks for nothing before the first request
        tracing_error_callback=failures.append,
    )

    def send(traces: Sequence[Trace]) -> None:
        failures.clear()
        # One JSON body: in Python the multipart form of the same costs four times the time.
        client.batch_ingest_runs(create=[run for trace in traces for run in runs(trace, target.project)])
        if failures:
            raise failures[0]

    return send


def runs(trace: Trace, project: str) -> list[dict[str, Any]]:
    """A turn's spans as LangSmith's runs."""
    orders: dict[str, str] = {}
    root, *_ = trace.spans
    return [_run(trace, project, span, orders, is_root=span is root) for span in trace.spans]


def _run(trace: Trace, project: str, span: Span, orders: dict[str, str], *, is_root: bool) -> dict[str, Any]:
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
        "inputs": _fields(span.inputs, "messages" if span.kind == "model" else "input"),
        "outputs": {**_fields(span.outputs, "messages" if span.kind == "model" else "output"), **_usage(span)},
        "error": span.error or None,
        "tags": _tags(span) if is_root else [],
        "extra": {"metadata": _metadata(trace, span)},
    }


def _time(ns: int) -> datetime:
    return datetime.fromtimestamp(ns / 1e9, UTC)


def _fields(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    return value if isinstance(value, dict) else {name: value}


def _usage(span: Span) -> dict[str, Any]:
    """The tokens, in the form by which LangSmith counts them; the turn's are the sum of its models'."""
    if span.kind != "model" or "input_tokens" not in span.attributes:
        return {}
    given, said = _tokens(span.attributes["input_tokens"]), _tokens(span.attributes.get("output_tokens"))
    return {"usage_metadata": {"input_tokens": given, "output_tokens": said, "total_tokens": given + said}}


def _tokens(fact: AttributeValue | None) -> int:
    """A count that LangSmith's JSON has room for."""
    text = str(fact)
    return min(int(text), MOST_TOKENS) if text.isdecimal() and len(text) < MOST_DIGITS else 0


def _tags(span: Span) -> list[str]:
    degraded = span.attributes.get("degraded")
    return [str(span.attributes.get("status", "")), *(degraded if isinstance(degraded, list) else [])]


def _metadata(trace: Trace, span: Span) -> dict[str, Any]:
    """What LangSmith filters by; by `session_id` it finds a conversation's turns together."""
    known = {"run_id": trace.run_id, "otel_trace_id": trace.trace_id, **span.attributes}
    if trace.session_id:
        known["session_id"] = trace.session_id
    if span.kind != "model":
        return known
    provider, model = span.attributes.get("provider"), span.attributes.get("model")
    return {**known, "ls_provider": provider, "ls_model_name": model, "ls_model_type": "chat"}
