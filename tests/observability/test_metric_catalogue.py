"""Each metric has a name, a help text, labels and buckets as Prometheus wants them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from serve_app.observability import metric_catalogue
from serve_app.observability.metrics import InMemoryMetrics

if TYPE_CHECKING:
    from serve_app.values import Metric

UNITS = ("_seconds", "_bytes", "_ratio", "_state", "_in_flight", "_waiting")
"""What a name ends with, before the `_total` of a counter; a count needs none."""


def problems(metric: Metric) -> list[str]:
    reserved = {"replica", "deployment", "application", "session", "user", "run", "le"}
    checks = {
        "a legal name": re.fullmatch(r"serve_app_[a-z]+(_[a-z]+)*", metric.name),
        "a counter, and only a counter, ends in _total": metric.name.endswith("_total") is (metric.kind == "counter"),
        "a unit in the name": metric.kind == "counter" or metric.name.endswith(UNITS),
        "a sentence as help": metric.help.endswith(".") and len(metric.help) > 20,
        "few labels": len(metric.labels) <= 3,
        "none of the labels of Ray Serve, and none without bounds": not {*metric.labels} & reserved,
        "buckets for a histogram only": bool(metric.buckets) is (metric.kind == "histogram"),
        "rising buckets": list(metric.buckets) == sorted({*metric.buckets}),
    }
    return [f"{metric.name}: {rule}" for rule, holds in checks.items() if not holds]


def test_each_metric_follows_the_rules_for_names_labels_and_buckets() -> None:
    assert [each for metric in metric_catalogue.ALL for each in problems(metric)] == []


def test_the_thresholds_of_the_objectives_are_bounds_of_buckets() -> None:
    assert {2.0, 5.0} <= {*metric_catalogue.TURN_S.buckets}
    assert 0.5 in metric_catalogue.RETRIEVAL_S.buckets
    assert 0.5 in metric_catalogue.STORE_S.buckets


def test_no_two_metrics_have_the_same_name() -> None:
    assert len({metric.name for metric in metric_catalogue.ALL}) == len(metric_catalogue.ALL) > 25


def test_an_observation_of_another_kind_or_with_other_labels_is_refused() -> None:
    metrics = InMemoryMetrics()
    with pytest.raises(ValueError, match="serve_app_turns_total is a counter"):
        metrics.observe(metric_catalogue.TURNS, 1, status="success", variant="stable")
    with pytest.raises(ValueError, match="variant"):
        metrics.count(metric_catalogue.TURNS, status="success")
