"""A log record, metrics page or number that cannot be processed costs no other, and fails no caller."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from serve_app.deployments.replica_metrics import RayMetrics
from serve_app.observability.logs import (
    ConsoleLogFormatter,
    JsonLogFormatter,
    RedactingFilter,
    RunLogHandler,
    log_context,
)
from serve_app.observability.metric_catalogue import BREAKER_STATE, CPU_S, RESIDENT_BYTES, TURNS
from serve_app.observability.metrics import REPORT_EVERY_S, InMemoryMetrics, report_process_metrics
from serve_app.observability.metrics_page import SCRAPE_UP, merge_pages
from serve_app.observability.redaction import Redactor
from serve_app.resilience.tasks import cancel_and_wait

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serve_app.values import Metric

HALF = "\ud83d"
GOOD = "# TYPE ray_turns counter\nray_turns_total 3.0\n"


class Raises:
    """Cannot be written as text."""

    def __str__(self) -> str:
        raise RuntimeError("poison")

    __repr__ = __str__


def deeply_nested() -> Any:
    value: Any = 1
    for _ in range(5000):
        value = [value]
    return value


ODD_RECORDS: dict[str, dict[str, Any]] = {
    "a value that raises": {"msg": "event", "value": Raises()},
    "a key that raises": {"msg": "event", "value": {Raises(): 1}},
    "an argument that raises": {"msg": "%s", "args": (Raises(),)},
    "a text that raises": {"msg": Raises()},
    "half a character": {"msg": HALF, "value": HALF},
    "no end of levels": {"msg": "event", "value": deeply_nested()},
}


@pytest.mark.parametrize("what", ODD_RECORDS)
def test_a_record_that_cannot_be_redacted_fails_no_caller_and_keeps_its_ids(what: str) -> None:
    redacting, lines, console = RedactingFilter(Redactor()), JsonLogFormatter({}), ConsoleLogFormatter({})
    run_logs = RunLogHandler(lines, redacting)
    made: list[logging.LogRecord] = []
    for fields in (ODD_RECORDS[what], {"msg": "well"}):
        made.append(logging.makeLogRecord({"name": "serve_app.x", "run_id": "r", **fields}))
        run_logs.handle(made[-1])
    drained = run_logs.drain()
    with log_context({"tenant": "t"}):
        for record in made:
            assert redacting.filter(record)
            json.loads(lines.format(record).encode())
            console.format(record).encode()
    assert [run_id for _, run_id, _ in drained] == ["r", "r"]
    assert [json.loads(line.encode())["run_id"] for _, _, line in drained] == ["r", "r"]


def test_a_record_that_cannot_be_redacted_is_written_without_its_fields() -> None:
    record = logging.makeLogRecord(
        {"name": "serve_app.x", "msg": "call 13800138000", "bad": Raises(), "phone": "13800138000"}
    )
    RedactingFilter(Redactor()).filter(record)
    assert "13800138000" not in JsonLogFormatter({}).format(record)


def read_page(found: bytes) -> tuple[dict[str, float], float]:
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


@settings(max_examples=60)
@given(GARBAGE)
def test_a_page_that_is_garbage_costs_no_other_nodes_page(garbage: str) -> None:
    up, turns = read_page(merge_pages({"a": GOOD, "b": garbage, "c": GOOD}))
    assert (up["a"], up["c"]) == (1, 1)
    assert turns >= 6 or "ray_turns" in garbage  # what it counts itself is added


@pytest.mark.looptime
async def test_a_metric_that_fails_does_not_end_the_reports_of_a_process() -> None:
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
    reporting = asyncio.create_task(report_process_metrics(metrics, breakers))
    await asyncio.sleep(2.5 * REPORT_EVERY_S)
    assert not reporting.done()
    assert set(metrics.of(BREAKER_STATE)) == {"b"}
    assert metrics.of(RESIDENT_BYTES)
    with contextlib.suppress(RuntimeError):
        await cancel_and_wait(reporting)


def test_an_observation_that_ray_refuses_costs_no_other_and_fails_nobody() -> None:
    counted: list[str] = []

    class RaysInstrument:
        def inc(self, by: float, labels: dict[str, str]) -> None:
            if labels["status"] == "poison":
                raise ValueError("poison")
            counted.append(labels["status"])

    class WithoutRay(RayMetrics):
        def _instrument(self, metric: Metric) -> Any:
            return RaysInstrument()

    metrics = WithoutRay(time.monotonic)
    for status in ("success", "poison", "error"):
        metrics.count(TURNS, status=status, variant="stable")
    metrics.flush()
    assert counted == ["success", "error"]
