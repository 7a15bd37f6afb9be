"""The tables and warnings of a load test, for the terminal and for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.cli.load_summary import MAX_CLIENT_LAG_MS, MS_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve_app.cli.load_summary import LoadResult, LoadSummary, Percentiles

Row = tuple[str, ...]

TURN_TITLES = ("turns", "count", "share")
TIME_TITLES = ("time", "p50", "p90", "p99", "p99.9", "max")
ERROR_TITLES = ("errors", "count", "p50")
DEGRADED_TITLES = ("answered without", "count")
SHORT_MS = 10.0
LONG_MS = 10_000.0
MAX_SILENT_ERRORS = 0.01
"""A share of turns without an answer above which the times alone mislead."""


def tables_of(result: LoadResult) -> Iterator[tuple[str, Row, Iterator[Row]]]:
    """Yield the heading, column titles and rows of each table; rows may be none."""
    yield "Turns", TURN_TITLES, turn_rows(result.summary)
    yield "Times", TIME_TITLES, time_rows(result.summary)
    yield "Errors", ERROR_TITLES, error_rows(result)
    yield "Degraded answers", DEGRADED_TITLES, degraded_rows(result)


def format_ms(value_ms: float) -> str:
    """Return a duration with its unit, in three or four digits."""
    if value_ms >= LONG_MS:
        return f"{value_ms / MS_PER_S:,.1f} s"
    return f"{value_ms:.1f} ms" if value_ms < SHORT_MS else f"{value_ms:,.0f} ms"


def turn_rows(summary: LoadSummary) -> Iterator[Row]:
    """Yield what became of the turns, without rows of zero that say nothing."""
    always = {"sent", "answered", "refused", "failed"}
    rows = {
        "sent": summary.sent,
        "answered": summary.answered,
        "  degraded": summary.degraded,
        "  waiting for approval": summary.waiting,
        "  from the answer cache": summary.cached,
        "  without a token": summary.without_tokens,
        "refused": summary.refused,
        "failed": summary.failed,
        "  not sent: too many in flight": summary.client_limit,
        "ended by the interruption": summary.cut_off,
    }
    for label, count in rows.items():
        if count or label in always:
            yield label, f"{count:,}", f"{count / summary.due:.1%}"


def time_rows(summary: LoadSummary) -> Iterator[Row]:
    """Yield the percentiles of each duration that was measured."""
    rows = {
        "latency": summary.latency,
        "time to first token": summary.first_token,
        "time between tokens": summary.between_tokens,
        "client's own lag": summary.client_lag,
    }
    for label, times in rows.items():
        if times is not None:
            yield label, *_format_times(times)


def _format_times(times: Percentiles) -> Iterator[str]:
    yield from map(format_ms, (times.p50_ms, times.p90_ms, times.p99_ms, times.p99_9_ms, times.max_ms))


def error_rows(result: LoadResult) -> Iterator[Row]:
    """Yield the errors, most frequent first."""
    for error in result.errors:
        yield error.label, f"{error.count:,}", format_ms(error.p50_ms)


def degraded_rows(result: LoadResult) -> Iterator[Row]:
    """Yield what answers were made without, most frequent first."""
    for part, count in result.degraded_without.items():
        yield part, f"{count:,}"


def warnings_of(result: LoadResult) -> Iterator[str]:
    """Yield what a reader of the figures must know."""
    summary = result.summary
    if summary.interrupted:
        yield f"The load test was interrupted after {summary.elapsed_s:,.0f} of {result.plan.duration_s:,.0f} s."
    if summary.client_lags and summary.client_lag:
        lag = format_ms(summary.client_lag.p99_ms)
        yield (
            f"The client started turns late (p99 {lag}; up to {MAX_CLIENT_LAG_MS:.0f} ms is normal): this machine, not "
            "the service, was the bottleneck. Lower --rate, or start several clients on other machines."
        )
    if summary.client_limit:
        yield (
            f"{summary.client_limit:,} turns were not sent: {result.plan.max_in_flight:,} were in flight, or this "
            "machine had no more connections. The service did not keep up with the rate."
        )
    unanswered = summary.errors / summary.due
    if unanswered > MAX_SILENT_ERRORS:
        yield f"The times are those of answered turns only; {unanswered:.1%} of the turns have no answer."
    if summary.cached:
        yield f"{summary.cached:,} answers came from the answer cache. --inputs with many messages avoids that."
