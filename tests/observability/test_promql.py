"""Does the check of names see the names, and the page of a busy service have them all?"""

from __future__ import annotations

import pytest
from expositions import page
from promql import metrics, names, unknown


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("up == 0", {"up"}),
        ('sum by (le, a) (rate(x_bucket{le="y", b=~"z.*"}[5m])) > 1e3', {"x_bucket"}),
        ("a:b:rate5m * 300 >= 10 and on (application) c unless c offset 15m", {"a:b:rate5m", "c"}),
        ("x / on (a) group_left () (y > 0) or 0 * vector(1)", {"x", "y"}),
        ('label_replace(rate(x[1h]), "dependency", "model:$1", "model", "(.*)")', {"x"}),
        ("max(max_over_time(x[30d:5m])) - 2 * (y offset 1d)", {"x", "y"}),
    ],
)
def test_the_metrics_of_an_expression_are_found_and_nothing_else(expression: str, found: set[str]) -> None:
    assert names(expression) == found


def test_a_metric_that_nobody_writes_is_unknown() -> None:
    read = [
        "ray_serve_app_turns_total + ray_serve_app_turn_seconds_bucket + ray_serve_deployment_status",
        "ray_serve_app_turns + ray_serve_app_turn_seconds + ray_serve_deployment_mood + a:b:c + a:b:d",
    ]
    expected = {"ray_serve_app_turns", "ray_serve_app_turn_seconds", "ray_serve_deployment_mood", "a:b:d"}
    assert unknown(read, {"a:b:c"}) == expected


def test_the_page_of_a_busy_service_has_each_metric_and_no_series_twice() -> None:
    series = [line.rpartition(" ")[0] for line in page(10).splitlines()]
    assert len(set(series)) == len(series)
    for metric in metrics():
        assert any(each.startswith(f"ray_{metric.name}") for each in series)
