"""Traces wait for a collector in bounded numbers, redacted, and each that does not reach it is counted."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from collectors import DroppedSpans
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.observability import exporter, langsmith, otlp
from serve_app.observability.exporter import (
    BATCH,
    ELLIPSIS,
    MAX_TEXT_CHARACTERS,
    TraceExporter,
    cut_texts,
    redact_trace,
)
from serve_app.observability.redaction import Redactor
from serve_app.observability.spans import start_root_span
from serve_app.observability.traceparent import TraceOrigin
from serve_app.values import ChatRequest, Context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from serve_app.observability.exporter import TraceData
    from serve_app.observability.spans import TurnRecording

REQUEST = ChatRequest(user_input="hello", session_id="s")
SPANS = 3
PHONE = "13800138000"
REDACTOR = Redactor()


class Sink:
    """Answers once it is `open`; fails while it is `broken`."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.broken = False
        self.begun = threading.Event()
        self.taken: list[TraceData] = []
        self.batches: list[int] = []

    def send(self, traces: Sequence[TraceData]) -> None:
        self.begun.set()
        self.open.wait(10)
        if self.broken:
            raise ConnectionError("with a secret")
        self.taken.extend(traces)
        self.batches.append(len(traces))


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.open.set()


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> DroppedSpans:
    monkeypatch.setattr(exporter, "LINGER_S", 0.02)
    return DroppedSpans()


def record_turn() -> TurnRecording:
    context = Context(request_id="q", run_id=uuid4().hex, session_id="s", deadline=0)
    with start_root_span(context, REQUEST, TraceOrigin(context.run_id, "", sampled=True), sampled=True) as root:
        for name in ("a", "b"):
            with root.start_child("step", name):
                pass
    return root.recording


def export_to(sink: Sink, dropped: DroppedSpans, max_spans: int = 100 * SPANS) -> TraceExporter:
    return TraceExporter("sink", lambda: sink.send, REDACTOR, dropped, max_spans)


def close(exporting: TraceExporter, within_s: float = 5) -> float:
    """Shut the exporter down; returns the seconds that it took."""
    started = time.monotonic()
    exporting.close()
    exporting.join(started + within_s)
    return time.monotonic() - started


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_all_traces_are_sent_in_order_and_in_batches(sink: Sink, dropped: DroppedSpans) -> None:
    exporting, turns = export_to(sink, dropped), [record_turn() for _ in range(3 * BATCH)]
    for each in turns:
        exporting.enqueue(each)
    sink.open.set()
    close(exporting)
    assert [each.run_id for each in sink.taken] == [each.context.run_id for each in turns]
    assert max(sink.batches) <= BATCH
    assert not dropped.counted


def test_a_full_queue_drops_whole_traces_counts_them_and_never_blocks(sink: Sink, dropped: DroppedSpans) -> None:
    exporting, turns = export_to(sink, dropped, max_spans=10 * SPANS), [record_turn() for _ in range(50)]
    for each in turns:  # nothing is sent meanwhile: the sink is not open
        exporting.enqueue(each)
    assert dropped.counted == {"sink": 40 * SPANS}
    sink.open.set()
    close(exporting)
    assert [len(each.spans) for each in sink.taken] == [SPANS] * 10
    assert dropped.counted == {"sink": 40 * SPANS}


def test_a_trace_with_more_spans_than_the_queue_holds_is_dropped(sink: Sink, dropped: DroppedSpans) -> None:
    exporting = export_to(sink, dropped, max_spans=SPANS - 1)
    exporting.enqueue(record_turn())
    assert dropped.counted == {"sink": SPANS}
    close(exporting)


def test_traces_that_a_sink_refuses_are_counted_and_the_next_is_sent(
    sink: Sink, dropped: DroppedSpans, caplog: pytest.LogCaptureFixture
) -> None:
    exporting = export_to(sink, dropped)
    sink.broken = True
    sink.open.set()
    for _ in range(3):
        exporting.enqueue(record_turn())
        wait_for(lambda: exporting._held_spans == 0)
    assert dropped.counted == {"sink": 3 * SPANS}
    sink.broken = False
    exporting.enqueue(record_turn())
    close(exporting)
    assert len(sink.taken) == 1
    assert [each.getMessage() for each in caplog.records] == ["trace_export_failing", "trace_export_resumed"]
    assert vars(caplog.records[0])["error"] == "ConnectionError"
    assert "secret" not in caplog.text


def test_a_client_that_cannot_be_made_costs_the_traces_and_no_more(dropped: DroppedSpans) -> None:
    def connect() -> None:
        raise ImportError("no such package")

    exporting = TraceExporter("sink", connect, REDACTOR, dropped)  # type: ignore[arg-type]
    exporting.enqueue(record_turn())
    close(exporting)
    assert dropped.counted == {"sink": SPANS}


def test_a_shutdown_leaves_a_sink_that_hangs_and_counts_its_traces(sink: Sink, dropped: DroppedSpans) -> None:
    exporting = export_to(sink, dropped)
    exporting.enqueue(record_turn())
    assert sink.begun.wait(5)
    exporting.enqueue(record_turn())
    assert close(exporting, within_s=0.2) < 5
    assert dropped.counted == {"sink": 2 * SPANS}
    exporting.enqueue(record_turn())
    assert dropped.counted == {"sink": 3 * SPANS}
    sink.open.set()
    exporting._thread.join(5)
    assert dropped.counted == {"sink": 3 * SPANS}


def test_a_trace_that_cannot_be_encoded_is_dropped_alone(sink: Sink, dropped: DroppedSpans) -> None:
    turns = [record_turn() for _ in range(5)]
    poison = turns[2].context.run_id

    def send(traces: Sequence[TraceData]) -> None:
        if any(each.run_id == poison for each in traces):
            raise TypeError("poison")
        sink.send(traces)

    sink.open.set()
    exporting = TraceExporter("sink", lambda: send, REDACTOR, dropped)
    for each in turns:
        exporting.enqueue(each)
    close(exporting)
    assert [each.run_id for each in sink.taken] == [each.context.run_id for each in turns if each is not turns[2]]
    assert dropped.counted == {"sink": SPANS}


def test_an_output_that_cannot_be_read_costs_itself_only(sink: Sink, dropped: DroppedSpans) -> None:
    exporting, recording = export_to(sink, dropped), record_turn()
    recording.spans[1].set_outputs(lambda: 1 / 0)
    exporting.enqueue(recording)
    sink.open.set()
    close(exporting)
    assert [each.outputs for each in sink.taken[0].spans] == [None, "(not exported: ZeroDivisionError)", None]
    assert not dropped.counted


def test_both_sinks_can_encode_whatever_a_span_holds() -> None:
    import orjson
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    class Raises:
        def __str__(self) -> str:
            raise RuntimeError("poison")

        __repr__ = __str__

    half, deep = "\ud83d", 1
    for _ in range(5000):
        deep = [deep]  # type: ignore[assignment]
    recording = record_turn()
    root, span, *_ = recording.spans
    root.set_outcome("failed")
    span.attributes = {"model": half, "input_tokens": 10**30, "output_tokens": 1, "thing": Raises(), "degraded": [half]}  # type: ignore[dict-item]
    span.kind = "model"
    span.inputs = lambda: {"messages": [{half: float("nan")}], "deep": deep, "thing": Raises()}
    span.outputs = lambda: 10**5000
    span.error = half
    trace = redact_trace(recording, REDACTOR)
    encode_spans([otlp._readable_span(trace, each) for each in trace.spans])
    orjson.dumps(langsmith.trace_runs(trace, "p"))


TEXTS = st.text(max_size=20) | st.just(PHONE)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS | st.just(int(PHONE)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=60)
@given(VALUES)
def test_no_secret_is_exported_wherever_it_stands_and_short_values_are_not_cut(value: Any) -> None:
    assert PHONE not in json.dumps(cut_texts(REDACTOR.redact_value(value)))
    assert cut_texts(value) == json.loads(json.dumps(value))


def test_a_text_is_redacted_before_it_is_cut_and_is_valid_utf_8() -> None:
    text = "x" * (MAX_TEXT_CHARACTERS - 6) + " " + PHONE + " " + "y" * 100
    exported = cut_texts(REDACTOR.redact_value(text))
    assert exported == f"{'x' * (MAX_TEXT_CHARACTERS - 6)} [phon{ELLIPSIS}"
    assert PHONE[:5] not in exported
    assert cut_texts(REDACTOR.redact_value({"at": {PHONE}})) == {"at": "{'[phone]'}"}, "a set is no JSON"
    assert cut_texts("a\ud800b") == "a?b"


def test_messages_become_messages_of_parts() -> None:
    call = {"id": "c0", "function": {"name": "echo", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "text", "text": "Wait"}], "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c0", "content": "x"},
    ]
    assert otlp.messages_of_parts(messages, "user") == [
        {"role": "user", "parts": [{"type": "text", "content": "Hi"}]},
        {
            "role": "assistant",
            "parts": [
                {"type": "text", "content": "Wait"},
                {"type": "tool_call", "id": "c0", "name": "echo", "arguments": "{}"},
            ],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c0", "response": "x"}]},
    ]
    assert otlp.messages_of_parts("Hi", "user") == [{"role": "user", "parts": [{"type": "text", "content": "Hi"}]}]
    assert otlp.messages_of_parts(None, "user") is None
