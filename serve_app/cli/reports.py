"""`serve-app logs`, `sessions` and `feedback`: what operators read of the running service."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args

import click
from click import style

from serve_app.cli.client import call_service, url_option
from serve_app.cli.terminal import count_of, format_table, strip_controls
from serve_app.values import FeedbackList, Rating, RequestLogLines, RunLogLines, SessionSizes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve_app.values import Feedback, RunLogLine, SessionSize

LEVEL_COLORS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}
SESSIONS_TIMEOUT_S = 60.0
"""The service examines every conversation."""
SESSION_TITLES = ("session", "turns", "size", "per turn", "repairs", "expires in")
BYTES_STEP = 1024
_HEADER_FIELDS = ("session_id", "request_id", "trace_id")
_HIDDEN_FIELDS = (*_HEADER_FIELDS, "application", "logger")


@click.command()
@click.option("--run", "run_id", help="The run id, from the answer or the first frame.")
@click.option("--request", "request_id", help="The request id, from the header X-Request-Id or the error.")
@url_option
def logs(run_id: str | None, request_id: str | None, url: str) -> None:
    """Show every step of one run, from all processes, in order.

    With --request, show the run that the request started, or why the request was refused. During a flood of refusals,
    only a sample of them is logged.

    Secret and personal data is masked. The log is stored as long as the run. A new line appears after half a
    second.
    """
    if (run_id is None) == (request_id is None):
        raise click.UsageError("Give one of --run and --request.")
    if run_id:
        lines = call_service(RunLogLines, url, "GET", f"/admin/runs/{run_id}/logs").lines
    else:
        log = call_service(RequestLogLines, url, "GET", f"/admin/requests/{request_id}/logs")
        click.echo(f"Run {log.run_id}" if log.run_id else "The request has no run.")
        lines = log.lines
    for line in _format_log(lines):
        click.echo(line)


def _format_log(lines: tuple[RunLogLine, ...]) -> Iterator[str]:
    if not lines:
        yield "There is no log of this run."
        return
    yield style(
        _format_fields({name: lines[0].fields[name] for name in _HEADER_FIELDS if name in lines[0].fields}), dim=True
    )
    process, event = (max(len(getattr(line, name)) for line in lines) for name in ("process", "event"))
    for line in lines:
        fields = _format_fields({name: value for name, value in line.fields.items() if name not in _HIDDEN_FIELDS})
        text = f"{_format_time(line.ts)}  {line.process:<{process}}  {line.event:<{event}}  {fields}".rstrip()
        yield style(strip_controls(text), fg=LEVEL_COLORS.get(line.level))
        for each in (line.exception or "").splitlines():
            yield f"    {strip_controls(each)}"


def _format_time(ts: str) -> str:
    """Return the local time of this machine."""
    return datetime.fromisoformat(ts).astimezone().strftime("%H:%M:%S.%f")[:-3]


def _format_fields(fields: dict[str, Any]) -> str:
    return " ".join(f"{name}={_format_value(value)}" for name, value in fields.items())


def _format_value(value: Any) -> str:
    if isinstance(value, str) and value and not any(each.isspace() or each in '"=' for each in value):
        return value
    return json.dumps(value, ensure_ascii=False)


@click.command()
@click.option(
    "--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="The number of conversations."
)
@url_option
def sessions(limit: int, url: str) -> None:
    """List the largest conversations in the memory of the running service.

    The size per turn should be about the same in long and in short conversations. "repairs" counts messages that were
    repaired or left out because a model could not read them.
    """
    query = {"limit": limit}
    sizes = call_service(SessionSizes, url, "GET", "/admin/sessions", SESSIONS_TIMEOUT_S, params=query)
    for line in (*format_table(SESSION_TITLES, map(_session_row, sizes.sessions)), _format_sizes(sizes)):
        click.echo(line)


def _session_row(size: SessionSize) -> tuple[str, ...]:
    return (
        strip_controls(size.session_id),
        f"{size.turns:,}",
        _format_bytes(size.bytes),
        _format_bytes(size.bytes / max(size.turns, 1)),
        f"{size.repairs:,}",
        _format_duration(size.expires_in_s),
    )


def _format_sizes(sizes: SessionSizes) -> str:
    counted, rows = count_of(sizes.counted, "conversation"), len(sizes.sessions)
    if not sizes.complete:
        return f"{rows} of the {counted} that were examined. There are more."
    if not rows:
        return "There are no conversations."
    return f"All {counted}." if rows == sizes.counted else f"The largest {rows} of {counted}."


def _format_bytes(count: float) -> str:
    if count < BYTES_STEP:
        return f"{count:.0f} B"
    for unit in ("KB", "MB"):
        count /= BYTES_STEP
        if count < BYTES_STEP:
            return f"{count:.1f} {unit}"
    return f"{count / BYTES_STEP:.1f} GB"


def _format_duration(seconds: float) -> str:
    """Return the duration in its two largest units."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    if hours:
        return f"{hours} h {minute} min"
    return f"{minutes} min {second} s" if minutes else f"{second} s"


@click.command()
@click.option("--rating", type=click.Choice(get_args(Rating)), help="Only feedback with this rating.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="The number of entries.")
@url_option
def feedback(rating: str | None, limit: int, url: str) -> None:
    """List the feedback of users with question and answer, newest first.

    Answers rated down show what to improve in the prompt or the documents.
    """
    parameters: dict[str, str | int] = {"limit": limit} | ({"rating": rating} if rating else {})
    page = call_service(FeedbackList, url, "GET", "/admin/feedback", params=parameters)
    for each in page.feedback:
        for line in _format_rating(each):
            click.echo(line)
    click.echo(_format_share(page))


def _format_rating(entry: Feedback) -> Iterator[str]:
    at = datetime.fromtimestamp(entry.at).astimezone().strftime("%Y-%m-%d %H:%M")
    ended = f"without {', '.join(entry.degraded)}" if entry.degraded else entry.status
    about = strip_controls(f"  run {entry.run_id}, session {entry.session_id}, {ended}")
    yield style(f"{at}  {entry.rating}", bold=True) + about
    yield from _format_text("question", entry.question)
    yield from _format_text("answer", entry.answer or "(none)")
    if entry.comment:
        yield from _format_text("comment", entry.comment)
    yield ""


def _format_text(title: str, text: str) -> Iterator[str]:
    first, *others = [strip_controls(line) for line in text.splitlines()] or [""]
    yield f"  {title:<9} {first}"
    for each in others:
        yield f"  {'':<9} {each}"


def _format_share(page: FeedbackList) -> str:
    ratings = page.up + page.down
    if not ratings:
        return "There is no feedback yet."
    share = f"{page.up / ratings:.0%} satisfied"
    return f"{len(page.feedback)} of {ratings:,} ratings: {page.up:,} up, {page.down:,} down, {share}."
