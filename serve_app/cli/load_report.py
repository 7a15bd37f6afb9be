"""The report of a load test: one self-contained HTML page, and JSON for programs."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

import click

from serve_app.cli import load_table
from serve_app.cli.load_plots import draw_plots
from serve_app.cli.load_summary import public_url
from serve_app.cli.load_table import format_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from serve_app.cli.load_plots import Figure
    from serve_app.cli.load_summary import LoadResult

MARK = "serve-app loadtest"
"""Stands at the beginning of both files. Only a file with it is replaced."""
MARK_BYTES = 400
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The page loads nothing and runs no script, even if a text from the network were not escaped."""


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """The HTML file of a report, and the JSON file beside it."""

    page: Path
    data: Path

    @classmethod
    def at(cls, page: Path) -> ReportFiles:
        """Return the files of a report, after a check that both can be written.

        Raises:
            click.ClickException: they cannot be written, or a file of another kind would be replaced.
        """
        report = cls(page, page.with_suffix(".json"))
        if report.page == report.data:
            raise click.ClickException(f"{page}: --report names the page, such as loadtest.html; the JSON is beside it")
        try:
            with tempfile.TemporaryFile(dir=page.parent):
                pass
            for path in (report.page, report.data):
                _check_replaceable(path)
        except OSError as error:
            raise click.ClickException(f"{page}: the report cannot be written ({error.strerror})") from error
        return report

    def write(self, result: LoadResult) -> None:
        """Write both files.

        Raises:
            click.ClickException: a file cannot be written.
        """
        data = {"made_by": MARK, **result.as_json()}
        try:
            self.data.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
            self.page.write_text(render_page(result), encoding="utf-8", errors="replace")
        except OSError as error:
            raise click.ClickException(f"{error.filename}: the report cannot be written ({error.strerror})") from error


def _check_replaceable(path: Path) -> None:
    if not path.exists():
        return
    if not os.access(path, os.W_OK):
        raise PermissionError(13, "the file is there and is read-only")
    with path.open("rb") as file:
        if MARK.encode() not in file.read(MARK_BYTES):
            raise click.ClickException(f"{path} is there and is no report of a load test; choose another --report")


def render_page(result: LoadResult) -> str:
    """Return the whole page. Every text from outside is escaped."""
    url = escape(public_url(result.plan.url))
    style = (files("serve_app.cli") / "load_report.css").read_text(encoding="utf-8")
    head = (
        f'<meta charset="utf-8"><meta name="generator" content="{MARK}">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<title>Load test of {url}</title><style>{style}</style>"
    )
    body = "\n".join((_header(result, url), *_sections(result)))
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>\n{body}\n</main></body></html>\n'


def _header(result: LoadResult, url: str) -> str:
    plan, started = result.plan, result.measurements.started_at
    how = f"{plan.rate_per_s:,g} turns per second for {plan.duration_s:,g} s{', streamed' if plan.stream else ''}"
    return f'<header><p class="kind">Load test</p><h1>{url}</h1><p>{started:%Y-%m-%d %H:%M:%S} UTC · {how}</p></header>'


def _sections(result: LoadResult) -> Iterator[str]:
    yield f'<section class="tiles">{"".join(_tiles(result))}</section>'
    if warnings := list(load_table.warnings_of(result)):
        yield f'<ul class="warnings">{"".join(f"<li>{escape(each)}</li>" for each in warnings)}</ul>'
    yield f'<section class="plots">{"".join(map(_figure, draw_plots(result)))}</section>'
    for title, (_, *titles), rows in load_table.tables_of(result):
        yield _table(title, titles, rows)
    parameters = result.parameters().items()
    rows = ((name, value if isinstance(value, str) else json.dumps(value)) for name, value in parameters)
    yield _table("Parameters", ["value"], rows, "text")


def _tiles(result: LoadResult) -> Iterator[str]:
    summary, plan = result.summary, result.plan
    yield _tile("Answered", f"{summary.answered / summary.due:.1%}", f"{summary.answered:,} of {summary.due:,} turns")
    yield _tile("Answered per second", f"{summary.answered_per_s:,.1f}", f"of {plan.rate_per_s:,g} planned")
    if summary.latency:
        latency = summary.latency
        yield _tile("Latency p50", format_ms(latency.p50_ms), "half of the answers came sooner")
        yield _tile("Latency p99", format_ms(latency.p99_ms), f"the slowest took {format_ms(latency.max_ms)}")
    if summary.first_token:
        first = summary.first_token
        yield _tile("First token p50", format_ms(first.p50_ms), f"p99 {format_ms(first.p99_ms)}")


def _tile(title: str, value: str, note: str) -> str:
    return f'<div><p class="kind">{escape(title)}</p><p class="value">{escape(value)}</p><p>{escape(note)}</p></div>'


def _figure(figure: Figure) -> str:
    legend = "".join(f'<span class="key {css}">{escape(name)}</span>' for css, name in figure.legend)
    return (
        f"<figure><h2>{escape(figure.title)}</h2><p>{escape(figure.note)}</p>"
        f'{figure.svg}<figcaption class="legend">{legend}</figcaption></figure>'
    )


def _table(title: str, titles: Iterable[str], rows: Iterable[tuple[str, ...]], css: str = "numbers") -> str:
    """Return a table with its heading; without rows, nothing. `titles` begin with the second column."""
    body = "".join(_row(row) for row in rows)
    if not body:
        return ""
    head = "".join(f"<th>{escape(each)}</th>" for each in ("", *titles))
    table = f'<table class="{css}"><tr>{head}</tr>{body}</table>'
    return f'<section><h2>{escape(title)}</h2><div class="wide">{table}</div></section>'


def _row(row: tuple[str, ...]) -> str:
    first, *others = row
    css = ' class="part"' if first.startswith(" ") else ""
    return f"<tr><td{css}>{escape(first.strip())}</td>{''.join(f'<td>{escape(each)}</td>' for each in others)}</tr>"
