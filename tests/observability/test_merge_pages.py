"""Nothing is lost, counted twice or kept for ever when the pages of all nodes become one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from serve_app.observability.metrics_page import merge_pages

if TYPE_CHECKING:
    from collections.abc import Iterable

ALIVE = "ray_serve_app_process_resident_bytes"
TURNS = "ray_serve_app_turns_total"
Series = tuple[str, str, int]
"""Who wrote it, of which replica, and how much it counted."""


def page(series: Iterable[Series], alive: Iterable[str] = ()) -> str:
    """As Ray writes it; each writer is there once."""
    samples = [f'{ALIVE}{{WorkerId="w",replica="{each}"}} 5.0' for each in alive]
    counted = [
        f'{TURNS}{{Component="core_worker",WorkerId="{writer}",replica="{replica}",status="success"}} {value}.0'
        for writer, replica, value in series
    ]
    return "\n".join(
        [f"# TYPE {ALIVE} gauge", *samples, f"# HELP {TURNS} Turns.", f"# TYPE {TURNS} counter", *counted, ""]
    )


def samples(text: bytes, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """The series of that name, each of which is there once."""
    found = [
        (tuple(sorted(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name
    ]
    assert len(found) == len(dict(found))
    return dict(found)


SERIES = st.lists(
    st.tuples(st.uuids().map(str), st.sampled_from(["r1", "r2", "r3"]), st.integers(0, 1000)), max_size=12
)


@settings(max_examples=40)
@given(st.lists(SERIES, min_size=1, max_size=4), st.sets(st.sampled_from(["r1", "r2", "r3"])))
def test_counters_add_up_per_living_replica_over_all_who_wrote_them(nodes: list[list[Series]], alive: set[str]) -> None:
    text = merge_pages({f"n{place}": page(series, alive) for place, series in enumerate(nodes)})
    expected: Counter[str] = Counter()
    for _, replica, value in (each for series in nodes for each in series):
        expected[replica] += value
    found = {dict(labels)["replica"]: value for labels, value in samples(text, TURNS).items()}
    assert found == {replica: value for replica, value in expected.items() if replica in alive}


def test_a_histogram_keeps_its_buckets_its_count_and_its_sum() -> None:
    def of(writer: str, low: int, high: int) -> str:
        name, labels = "ray_serve_x_ms", f'WorkerId="{writer}",deployment="A"'
        rows = [f'{name}_bucket{{{labels},le="1.0"}} {low}', f'{name}_bucket{{{labels},le="+Inf"}} {high}']
        return "\n".join(
            [f"# TYPE {name} histogram", *rows, f"{name}_count{{{labels}}} {high}", f"{name}_sum{{{labels}}} 7", ""]
        )

    text = merge_pages({"a": of("w1", 2, 3), "b": of("w2", 10, 20)})
    assert samples(text, "ray_serve_x_ms_bucket") == {
        (("deployment", "A"), ("le", "1.0")): 12,
        (("deployment", "A"), ("le", "+Inf")): 23,
    }
    assert samples(text, "ray_serve_x_ms_count") == {(("deployment", "A"),): 23}
    assert samples(text, "ray_serve_x_ms_sum") == {(("deployment", "A"),): 14}


def test_gauges_add_up_but_states_and_shares_do_not() -> None:
    def of(writer: str, value: int) -> str:
        names = ["ray_serve_deployment_queued_queries", "ray_serve_deployment_status", "ray_node_cpu_utilization"]
        return "".join(f'# TYPE {name} gauge\n{name}{{handle="{writer}"}} {value}\n' for name in names)

    text = merge_pages({"a": of("h1", 3), "b": of("h2", 4)})
    assert samples(text, "ray_serve_deployment_queued_queries") == {(): 7}
    assert samples(text, "ray_serve_deployment_status") == {(): 4}
    assert samples(text, "ray_node_cpu_utilization") == {(): 4}


def test_restarts_leave_no_series_behind() -> None:
    dead = [(f"w{number}", f"old{number}", 5) for number in range(50)]
    text = merge_pages({"a": page([*dead, ("w", "new", 1)], alive=["new"])})
    assert samples(text, TURNS) == {(("replica", "new"), ("status", "success")): 1}


def test_a_replica_in_the_name_of_an_actor_makes_no_series_of_its_own() -> None:
    name = "ray_node_manager_unexpected_worker_failure_total"
    rows = [f'{name}{{Name="SERVE_REPLICA::app#Agent#{each}:ServeReplica:app:Agent.__init__"}} 1' for each in "ab"]
    text = merge_pages({"a": "\n".join([f"# TYPE {name} counter", *rows, ""])})
    assert samples(text, name) == {(("Name", "SERVE_REPLICA::app#Agent:ServeReplica:app:Agent.__init__"),): 2}


def test_what_is_of_the_process_that_serves_a_nodes_page_is_left_out() -> None:
    assert b"python_info" not in merge_pages({"a": '# TYPE python_info gauge\npython_info{version="3"} 1\n'})


def test_a_node_without_a_page_that_can_be_read_is_told_and_takes_nothing_with_it() -> None:
    text = merge_pages({"a": page([("w", "r", 3)], ["r"]), "b": None, "c": "<html>?</html>"})
    up = {dict(labels)["node"]: value for labels, value in samples(text, "serve_app_scrape_up").items()}
    assert up == {"a": 1, "b": 0, "c": 0}
    assert list(samples(text, TURNS).values()) == [3]


def test_no_nodes_are_an_empty_page() -> None:
    assert samples(merge_pages({}), "serve_app_scrape_up") == {}
