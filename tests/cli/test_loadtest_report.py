"""The figures of a load test are right, and its report is one page that needs nothing and believes nobody."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from manual_pages import ROOT
from rude_chat import SCRIPT, rude_chat
from test_loadtest_open_loop import plan_of

from serve_app.cli.load_generator import MeasuredTurn, Measurements
from serve_app.cli.load_report import ReportFiles, render_page
from serve_app.cli.load_summary import MAX_ERRORS, LoadResult, Percentiles, percentile
from serve_app.cli.load_table import format_ms, warnings_of
from serve_app.cli.main import main
from serve_app.cli.svg_plot import Axis
from serve_app.cli.turn_client import TurnError, TurnOutcome, clean_name

if TYPE_CHECKING:
    from pathlib import Path

FULL = TurnError("http", "queue_full", 503, "overloaded")
BROKEN = TurnError("transport", "stream broke")


def turn(planned_s: float, latency_s: float, error: TurnError | None = None, **outcome: Any) -> MeasuredTurn:
    first_s = None if error else planned_s + latency_s / 2
    status = "" if error else "success"
    return MeasuredTurn(
        planned_s, planned_s, planned_s + latency_s, first_s, TurnOutcome(status, error=error, **outcome)
    )


def result_of(*turns: MeasuredTurn, **plan: Any) -> LoadResult:
    measurements = Measurements(sent=len(turns), elapsed_s=max((each.ended_s for each in turns), default=0))
    for each in turns:
        measurements.add(each)
    return LoadResult.of(plan_of(**({"stream": True, "duration_s": 10} | plan)), measurements)


@given(st.lists(st.integers(), min_size=1).map(sorted), st.floats(0.001, 1))
def test_a_percentile_is_the_smallest_value_that_the_share_does_not_exceed(values: list[int], share: float) -> None:
    found = percentile(values, share)
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values)


def test_percentiles_are_in_milliseconds_and_of_nothing_there_are_none() -> None:
    assert Percentiles.of(number / 1000 for number in range(1000, 0, -1)) == Percentiles(1000, 500, 900, 990, 999, 1000)
    assert Percentiles.of([]) is None


def test_a_second_has_what_ended_in_it_and_the_latency_of_what_was_planned_in_it() -> None:
    seconds = result_of(turn(0.5, 2), turn(0.6, 0.1, FULL), turn(2.9, 0.2), turn(3.0, 0.1, BROKEN)).seconds
    figures = [(each.second, each.planned, each.answered, each.refused, each.failed) for each in seconds]
    assert figures == [(0, 2, 0, 1, 0), (1, 0, 0, 0, 0), (2, 1, 1, 0, 0), (3, 1, 1, 0, 1)]
    assert [each.latency_p99_ms for each in seconds] == [2000, None, 200, None]


def test_an_answer_that_comes_after_the_load_is_no_throughput() -> None:
    summary = result_of(*(turn(number, 0.5) for number in range(10)), turn(9.9, 30)).summary
    assert (summary.answered, summary.answered_per_s) == (11, 1.0)


def test_a_refusal_does_not_make_the_latency_better() -> None:
    summary = result_of(turn(0, 2), *(turn(1, 0.001, FULL) for _ in range(50))).summary
    assert summary.latency
    assert (summary.refused, summary.failed, summary.latency.count, summary.latency.p50_ms) == (50, 0, 1, 2000)


def test_a_good_run_has_no_warnings() -> None:
    result = result_of(*(turn(number / 10, 0.2) for number in range(100)), turn(9, 0.1, BROKEN))
    assert list(warnings_of(result)) == []
    assert "warnings" not in {attributes.get("class") for _, attributes in Page(render_page(result)).tags}


def test_a_service_that_invents_errors_gets_no_endless_table() -> None:
    errors = [turn(0, 1, TurnError("http", f"reason {number}", 500, "internal")) for number in range(MAX_ERRORS + 20)]
    counted = result_of(*errors, *(turn(0, 1, BROKEN) for _ in range(3))).errors
    assert (counted[0].label, counted[0].count) == ("transport: stream broke", 3)
    assert (counted[-1].label, counted[-1].count, len(counted)) == ("21 other errors", 21, MAX_ERRORS + 1)


def test_a_name_from_the_network_is_short_and_printable() -> None:
    for name, clean in {
        "queue_full": "queue_full",
        "a\x1b[31m\nb\u202ec\ud800": "a\N{REPLACEMENT CHARACTER}[31m"
        + "{0}b{0}c{0}".format("\N{REPLACEMENT CHARACTER}"),
        "x" * 81: "x" * 79 + "…",
        "中文": "中文",
    }.items():
        assert clean_name(name) == clean


class Page(HTMLParser):
    """The tags of a page with their attributes; each is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_loads_nothing_runs_nothing_and_escapes_what_comes_from_the_network(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    arguments = ["--input", f"script {SCRIPT}", "--rate", "8", "--seconds", "0.5", "--report", str(page)]
    with rude_chat() as (url, _):
        CliRunner().invoke(main, ["loadtest", url, *arguments])
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 2  # the reason and the message
    assert f"HTTP 503 model_unavailable ({SCRIPT})" in Page(text).text
    parts = (turn(1, 1, degraded=(SCRIPT,)), turn(2, 1, FULL))
    for rendered in (text, render_page(result_of(*parts, url=f"http://me:secret@host/{SCRIPT}", inputs=(SCRIPT,)))):
        parsed = Page(rendered)
        assert not {tag for tag, _ in parsed.tags} & {"script", "link", "img", "iframe", "a", "base", "object", "use"}
        names = {name for _, attributes in parsed.tags for name in attributes}
        assert not {name for name in names if name in {"src", "href", "style"} or name.startswith("on")}
        assert not re.search(r"url\(|@import|//(?!(127\.0\.0\.1|host))", rendered)
        assert "secret" not in rendered
        assert "<script" not in rendered


def test_the_page_is_whole_whatever_was_measured() -> None:
    for turns in (
        [],
        [turn(0, 0)],
        [turn(0, 0.1)] * 3,
        [turn(0.2, 0.001, FULL)],
        [turn(number / 7, 10 ** (number % 6 - 3), BROKEN if number % 5 == 0 else None) for number in range(5000)],
    ):
        result = result_of(*turns)
        page = Page(render_page(result))
        assert f"sent{len(turns):,}" in page.text
        assert f"answered{result.summary.answered:,}" in page.text
        assert "NaN" not in page.text
        assert all("nan" not in str(value) for _, attributes in page.tags for value in attributes.values())


def test_the_plots_show_what_was_measured() -> None:
    page = Page(render_page(result_of(turn(0.5, 1), turn(1.2, 3), turn(2, 0.1, FULL), turn(3, 0.1, BROKEN))))
    seen = {attributes.get("aria-label") for tag, attributes in page.tags if tag == "svg"}
    assert seen == {"Latency by percentile", "Latency over time", "Outcomes over time", "Time to first token"}
    for title in ("1 s: 1 answered", "4 s: 1 answered", "2 s: 1 refused", "3 s: 1 failed"):
        assert title in page.text
    bars = [attributes["class"] for tag, attributes in page.tags if tag == "rect"]
    assert [bars.count(name) for name in ("refused", "failed")] == [1, 1]
    [p50] = [attributes["d"] or "" for tag, attributes in page.tags if attributes.get("class") == "line p50"][1:]
    assert (p50.count("M"), p50.count("L")) == (1, 1)  # two seconds in a row have answers
    gap = Page(render_page(result_of(turn(0, 1), turn(5, 1)))).tags
    [p50] = [attributes["d"] or "" for tag, attributes in gap if attributes.get("class") == "line p50"][1:]
    assert (p50.count("M"), p50.count("L")) == (2, 0)  # no line leads through seconds without an answer
    plain = Page(render_page(result_of(turn(0, 1), stream=False)))
    assert "time between tokens" not in plain.text


def test_the_page_stays_small_however_long_the_run_is() -> None:
    turns = [turn(number / 10, 0.2) for number in range(20_000)]
    assert len(render_page(result_of(*turns, duration_s=2000))) < 200_000


def test_an_axis_covers_its_values_with_a_few_round_ticks() -> None:
    for highest in (0.0, 0.004, 0.99, 1, 7, 31, 999.9999999, 1000, 123_456):
        linear = Axis.from_zero("", highest)
        assert linear.high >= highest
        assert 2 <= len(linear.ticks) <= 8
        for times in (1, 1.01, 5, 40, 100_000):
            powers = Axis.of_powers("", highest + 0.1, (highest + 0.1) * times)
            assert powers.share(powers.low) == 0 <= powers.share(powers.high) == 1
            assert 10**powers.low <= (highest + 0.1) * (1 + 1e-9)
            assert 10**powers.high >= (highest + 0.1) * times * (1 - 1e-9)
            assert 2 <= len(powers.ticks) <= 12


def test_a_report_replaces_only_a_report(tmp_path: Path) -> None:
    page, data = tmp_path / "package.html", tmp_path / "package.json"
    ReportFiles.at(page).write(result_of(turn(0, 1)))
    ReportFiles.at(page).write(result_of(turn(0, 2)))
    assert json.loads(data.read_text())["summary"]["latency"]["max_ms"] == 2000
    for path in (page, data):
        written = path.read_bytes()
        path.write_text('{"name": "somebody\'s"}')
        with pytest.raises(Exception, match="is no report of a load test; choose another --report"):
            ReportFiles.at(page)
        path.write_bytes(written)


def test_every_key_of_the_json_is_in_the_manual(tmp_path: Path) -> None:
    manual = (ROOT / "serve_app" / "docs" / "load-testing.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`(\w+)`", manual))
    assert _keys(result_of(turn(0, 1), turn(1, 1, FULL)).as_json()) - documented == set()


def _keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {*value, *(key for each in value.values() for key in _keys(each))}
    return {key for each in value for key in _keys(each)} if isinstance(value, list) else set()


def test_a_duration_is_written_with_its_unit() -> None:
    assert [format_ms(value) for value in (0.04, 9.94, 12.6, 1234.5, 20_049)] == [
        "0.0 ms",
        "9.9 ms",
        "13 ms",
        "1,234 ms",
        "20.0 s",
    ]
