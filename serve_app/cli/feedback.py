"""`serve-app feedback`: what users think of the answers."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, get_args

import click
from click import style

from serve_app.cli.client import open_client, read_response, url_option
from serve_app.cli.terminal import strip_controls
from serve_app.values import FeedbackList, Rating

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve_app.values import Feedback

TIMEOUT_S = 30.0


@click.command()
@click.option("--rating", type=click.Choice(get_args(Rating)), help="Only feedback with this rating.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="The number of entries.")
@url_option
def feedback(rating: str | None, limit: int, url: str) -> None:
    """List the feedback of users with question and answer, newest first.

    Answers rated down show what to improve in the prompt or the documents.
    """
    parameters: dict[str, str | int] = {"limit": limit} | ({"rating": rating} if rating else {})
    with open_client(url, TIMEOUT_S) as client:
        page = read_response(FeedbackList, client.get("/admin/feedback", params=parameters))
    for each in page.feedback:
        for line in _format_entry(each):
            click.echo(line)
    click.echo(_format_summary(page))


def _format_entry(entry: Feedback) -> Iterator[str]:
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


def _format_summary(page: FeedbackList) -> str:
    ratings = page.up + page.down
    if not ratings:
        return "There is no feedback yet."
    share = f"{page.up / ratings:.0%} satisfied"
    return f"{len(page.feedback)} of {ratings:,} ratings: {page.up:,} up, {page.down:,} down, {share}."
