"""Do traces wait for a sink in bounded numbers, and is each that does not reach it counted?"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from collectors import Dropped

from serve_app.observability.exporter import BATCH, Outbox
from serve_app.observability.redaction import Redactor
from serve_app.observability.spans import begun
from serve_app.observability.traceparent import TraceOrigin
from serve_app.values import ChatRequest, Context

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from serve_app.observability.export import Trace
    from serve_app.observability.spans import Recording

REQUEST = ChatRequest(user_input="hello", session_id="s")
SPANS = 3


class Sink:
    """Takes what it is sent while it is `open`, and fails while it is `broken`."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.broken = False
        self.begun = threading.Event()
        self.taken: list[Trace] = []
        self.batches: list[int] = []

    def send(self, traces: Sequence[Trace]) -> None:
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
def dropped() -> Dropped:
    return Dropped()


def turn() -> Recording:
    context = Context(request_id="q", run_id=uuid4().hex, session_id="s", deadline=0)
    with begun(context, REQUEST, TraceOrigin(context.run_id, "", sampled=True), sampled=True) as root:
        for name in ("a", "b"):
            with root.start_child("step", name):
                pass
    return root.recording


def outbox(sink: Sink, dropped: Dropped, max_spans: int = 100 * SPANS) -> Outbox:
    return Outbox("sink", lambda: sink.send, Redactor(), dropped, max_spans)


def closed(box: Outbox, within_s: float = 5) -> float:
    started = time.monotonic()
    box.close()
    box.join(started + within_s)
    return time.monotonic() - started


def test_everything_that_is_put_is_sent_in_order_and_in_batches(sink: Sink, dropped: Dropped) -> None:
    box, turns = outbox(sink, dropped), [turn() for _ in range(3 * BATCH)]
    for each in turns:
        box.put(each)
    sink.open.set()
    closed(box)
    assert [each.run_id for each in sink.taken] == [each.context.run_id for each in turns]
    assert max(sink.batches) <= BATCH
    assert not dropped.counted


def test_beyond_the_bound_traces_are_dropped_and_counted_and_nobody_waits(sink: Sink, dropped: Dropped) -> None:
    box, turns = outbox(sink, dropped, max_spans=10 * SPANS), [turn() for _ in range(50)]
    started = time.monotonic()
    for each in turns:
        box.put(each)
    assert time.monotonic() - started < 0.5
    assert dropped.counted == {"sink": 40 * SPANS}
    sink.open.set()
    closed(box)
    assert len(sink.taken) == 10
    assert dropped.counted == {"sink": 40 * SPANS}


def test_a_trace_with_more_spans_than_may_wait_is_dropped(sink: Sink, dropped: Dropped) -> None:
    box = outbox(sink, dropped, max_spans=SPANS - 1)
    box.put(turn())
    assert dropped.counted == {"sink": SPANS}
    closed(box)


def test_what_a_sink_does_not_take_is_counted_and_the_next_is_sent(
    sink: Sink, dropped: Dropped, caplog: pytest.LogCaptureFixture
) -> None:
    box = outbox(sink, dropped)
    sink.broken = True
    sink.open.set()
    for _ in range(3):
        box.put(turn())
        _until(lambda: box._spans == 0)
    assert dropped.counted == {"sink": 3 * SPANS}
    sink.broken = False
    box.put(turn())
    closed(box)
    assert len(sink.taken) == 1
    said = [each.getMessage() for each in caplog.records]
    assert said == ["traces do not reach sink, they are dropped: ConnectionError", "traces reach sink again"]


def test_a_sink_that_cannot_be_built_costs_the_traces_and_no_more(dropped: Dropped) -> None:
    def build() -> None:
        raise ImportError("no such package")

    box = Outbox("sink", build, Redactor(), dropped)  # type: ignore[arg-type]
    box.put(turn())
    closed(box)
    assert dropped.counted == {"sink": SPANS}


def test_a_sink_that_hangs_is_left_after_its_time_and_what_it_did_not_take_is_counted(
    sink: Sink, dropped: Dropped
) -> None:
    box = outbox(sink, dropped)
    box.put(turn())
    assert sink.begun.wait(5)
    box.put(turn())
    assert closed(box, within_s=0.2) < 0.5
    assert dropped.counted == {"sink": 2 * SPANS}
    box.put(turn())
    assert dropped.counted == {"sink": 3 * SPANS}
    sink.open.set()
    box._thread.join(5)
    assert dropped.counted == {"sink": 3 * SPANS}


def test_a_text_that_cannot_be_told_costs_itself_only(sink: Sink, dropped: Dropped) -> None:
    box, recording = outbox(sink, dropped), turn()
    recording.spans[1].set_outputs(lambda: 1 / 0)
    box.put(recording)
    sink.open.set()
    closed(box)
    assert [each.outputs for each in sink.taken[0].spans] == [None, "(not told: ZeroDivisionError)", None]
    assert not dropped.counted


def _until(holds: object) -> None:
    deadline = time.monotonic() + 5
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.005)
