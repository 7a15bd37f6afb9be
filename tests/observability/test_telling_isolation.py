"""One record, trace, page or number that cannot be told costs no other, and fails nobody who tells it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
from collectors import Dropped
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from test_outbox import closed, turn

from serve_app.deployments.metrics import RayMetrics
from serve_app.observability import langsmith, otlp
from serve_app.observability.export import leaving
from serve_app.observability.exporter import Outbox
from serve_app.observability.logs import ConsoleLogFormatter, JsonLogFormatter, RedactingFilter, log_context
from serve_app.observability.metric_catalogue import BREAKER_STATE, CPU_S, RESIDENT_BYTES, TURNS
from serve_app.observability.metrics_page import SCRAPE_UP, merge_pages
from serve_app.observability.null import InMemoryMetrics
from serve_app.observability.process_metrics import EVERY_S, report_process_metrics
from serve_app.observability.redaction import Redactor
from serve_app.observability.run_log_handler import RunLogHandler
from serve_app.resilience.tasks import cancel_and_wait

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serve_app.observability.export import Trace
    from serve_app.values import Metric

HALF = "\ud83d"
GOOD = "# TYPE ray_turns counter\nray_turns_total 3.0\n"


class Raises:
    """Says nothing of itself."""

    def __str__(self) -> str:
        raise RuntimeError("poison")

    __repr__ = __str__


def deep() -> Any:
    value: Any = 1
    for _ in range(5000):
        value = [value]
    return value


ODD: dict[str, dict[str, Any]] = {
    "a value that raises": {"msg": "event", "value": Raises()},
    "a key that raises": {"msg": "event", "value": {Raises(): 1}},
    "an argument that raises": {"msg": "%s", "args": (Raises(),)},
    "a text that raises": {"msg": Raises()},
    "half a character": {"msg": HALF, "value": HALF},
    "no end of levels": {"msg": "event", "value": deep()},
}


@pytest.mark.parametrize("what", ODD)
def test_a_record_that_cannot_be_told_fails_nobody_and_keeps_its_ids(what: str) -> None:
    screen, lines, readable = RedactingFilter(Redactor()), JsonLogFormatter({}), ConsoleLogFormatter({})
    trail = RunLogHandler(lines, screen)
    made: list[logging.LogRecord] = []
    for fields in (ODD[what], {"msg": "well"}):
        made.append(logging.makeLogRecord({"name": "serve_app.x", "run_id": "r", **fields}))
        trail.handle(made[-1])
    told = trail.drain()
    with log_context({"tenant": "t"}):
        for record in made:
            assert screen.filter(record)
            json.loads(lines.format(record).encode())
            readable.format(record).encode()
    assert [run_id for _, run_id, _ in told] == ["r", "r"]
    assert [json.loads(line.encode())["run_id"] for _, _, line in told] == ["r", "r"]


def test_a_record_that_cannot_be_masked_tells_nothing_unmasked() -> None:
    record = logging.makeLogRecord(
        {"name": "serve_app.x", "msg": "call 13800138000", "bad": Raises(), "phone": "13800138000"}
    )
    RedactingFilter(Redactor()).filter(record)
    assert "13800138000" not in JsonLogFormatter({}).format(record)


class Writes:
    """A sink that writes all traces of a request together, as `otlp` or as `langsmith` does."""

    def __init__(self, write: Any) -> None:
        self._write = write
        self.taken: list[str] = []

    def send(self, traces: Sequence[Trace]) -> None:
        for trace in traces:
            self._write(trace)
        self.taken += [trace.run_id for trace in traces]


def refusing(poison: str) -> Any:
    def write(trace: Trace) -> None:
        if trace.run_id == poison:
            raise TypeError("poison")

    return write


def test_a_trace_that_cannot_be_written_is_dropped_alone() -> None:
    dropped, turns = Dropped(), [turn() for _ in range(5)]
    sink = Writes(refusing(turns[2].context.run_id))
    box = Outbox("sink", lambda: sink.send, Redactor(), dropped)
    for each in turns:
        box.put(each)
    closed(box)
    assert sink.taken == [each.context.run_id for each in turns if each is not turns[2]]
    assert dropped.counted == {"sink": len(turns[2].spans)}


def test_whatever_a_span_holds_can_be_written_by_both_sinks() -> None:
    import orjson
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    recording = turn()
    root, span, *_ = recording.spans
    root.set_outcome("failed")
    span.attributes = {"model": HALF, "input_tokens": 10**30, "output_tokens": 1, "thing": Raises(), "degraded": [HALF]}  # type: ignore[dict-item]
    span.kind = "model"
    span.inputs = lambda: {"messages": [{HALF: float("nan")}], "deep": deep(), "thing": Raises()}
    span.outputs = lambda: 10**5000
    span.error = HALF
    trace = leaving(recording, Redactor())
    encode_spans([otlp._readable(trace, each) for each in trace.spans])
    orjson.dumps(langsmith.runs(trace, "p"))


def pages(found: bytes) -> tuple[dict[str, float], float]:
    families = list(text_string_to_metric_families(found.decode()))
    samples = [sample for family in families for sample in family.samples]
    up = {sample.labels["node"]: sample.value for sample in samples if sample.name == SCRAPE_UP}
    return up, sum(sample.value for sample in samples if sample.name == "ray_turns_total")


GARBAGE = st.text() | st.lists(
    st.sampled_from(
        [
            *(
                "# TYPE ray_turns counter",
                "# TYPE ray_turns gauge",
                "ray_turns_total",
                "{",
                "}",
                "=",
                '"',
                " ",
                "\n",
                "1.0",
            ),
            *(
                "# HELP ray_turns ",
                "NaN",
                "le",
                "# TYPE ray_b histogram",
                "ray_b_bucket",
                "\\",
                "# EOF",
                " # {",
                "ray_x{} 1",
            ),
        ]
    ),
    max_size=12,
).map("".join)


@given(GARBAGE)
def test_a_page_that_is_garbage_costs_no_other_nodes_page(garbage: str) -> None:
    up, turns = pages(merge_pages({"a": GOOD, "b": garbage, "c": GOOD}))
    assert (up["a"], up["c"]) == (1, 1)
    assert turns >= 6 or "ray_turns" in garbage  # what it counts itself is added


@pytest.mark.looptime
async def test_a_breaker_or_a_metric_that_cannot_be_told_ends_no_heartbeat() -> None:
    class Poisoned(InMemoryMetrics):
        def count(self, metric: Metric, by: float = 1, **labels: str) -> None:
            if metric is CPU_S:
                raise RuntimeError("poison")
            super().count(metric, by, **labels)

        def flush(self) -> None:
            raise RuntimeError("poison")

    def breakers() -> Mapping[str, str]:
        return {"a": "melted", "b": "open"}

    metrics = Poisoned()
    beating = asyncio.create_task(report_process_metrics(metrics, breakers))
    await asyncio.sleep(2.5 * EVERY_S)
    assert not beating.done()
    assert set(metrics.of(BREAKER_STATE)) == {"b"}
    assert metrics.of(RESIDENT_BYTES)
    with contextlib.suppress(RuntimeError):
        await cancel_and_wait(beating)


def test_an_observation_that_ray_refuses_costs_no_other_and_fails_nobody() -> None:
    told: list[str] = []

    class RaysOwn:
        def inc(self, by: float, labels: dict[str, str]) -> None:
            if labels["status"] == "poison":
                raise ValueError("poison")
            told.append(labels["status"])

    class Told(RayMetrics):
        def _of(self, metric: Metric) -> Any:
            return RaysOwn()

    metrics = Told(time.monotonic)
    for status in ("success", "poison", "error"):
        metrics.count(TURNS, status=status, variant="stable")
    metrics.flush()
    assert told == ["success", "error"]
