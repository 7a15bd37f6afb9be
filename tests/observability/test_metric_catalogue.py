"""Is each metric named and described as Prometheus wants it?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from serve_app.observability import metric_catalogue
from serve_app.observability.null import InMemoryMetrics

if TYPE_CHECKING:
    from serve_app.values import Metric

EACH = pytest.mark.parametrize("metric", metric_catalogue.ALL, ids=lambda metric: metric.name)
UNITS = ("_seconds", "_bytes", "_state", "_in_flight", "_waiting")
"""What a name ends with, before the `_total` of a counter; a count needs none."""


@EACH
def test_a_metric_has_a_legal_name_with_its_unit_and_a_sentence(metric: Metric) -> None:
    assert re.fullmatch(r"serve_app_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") is (metric.kind == "counter")
    assert metric.kind == "counter" or metric.name.endswith(UNITS)
    assert metric.help.endswith(".")
    assert len(metric.help) > 20


@EACH
def test_its_labels_are_few_and_leave_serves_own_alone(metric: Metric) -> None:
    assert len(metric.labels) <= 3
    assert not {*metric.labels} & {"replica", "deployment", "application", "session", "user", "run", "le"}


@EACH
def test_only_a_histogram_has_buckets_and_they_rise(metric: Metric) -> None:
    assert bool(metric.buckets) is (metric.kind == "histogram")
    assert list(metric.buckets) == sorted({*metric.buckets})


def test_the_thresholds_of_the_objectives_are_bounds_of_buckets() -> None:
    assert {2.0, 5.0} <= {*metric_catalogue.TURN_S.buckets}
    assert 0.5 in metric_catalogue.RETRIEVAL_S.buckets
    assert 0.5 in metric_catalogue.STORE_S.buckets


def test_no_name_is_there_twice() -> None:
    assert len({metric.name for metric in metric_catalogue.ALL}) == len(metric_catalogue.ALL) > 25


def test_who_records_insists_on_the_kind_and_the_labels() -> None:
    metrics = InMemoryMetrics()
    with pytest.raises(ValueError, match="serve_app_turns_total is a counter"):
        metrics.observe(metric_catalogue.TURNS, 1, status="success", variant="stable")
    with pytest.raises(ValueError, match="variant"):
        metrics.count(metric_catalogue.TURNS, status="success")
