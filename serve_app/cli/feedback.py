"""What did users think of which answer?"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, get_args

import click
from click import style

from serve_app.cli.client import check, service, url_option
from serve_app.cli.transcript import CONTROLS
from serve_app.values import FeedbackList, Rating

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve_app.values import Feedback

ANSWER_S = 30.0


@click.command()
@click.option("--rating", type=click.Choice(get_args(Rating)), help="Only votes of this rating.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="How many are listed.")
@url_option
def feedback(rating: str | None, limit: int, url: str) -> None:
    """List what users thought of answers, latest first, with question and answer.

    Answers that were voted down show where the prompt or the documents fall short.
    """
    wanted: dict[str, str | int] = {"limit": limit} | ({"rating": rating} if rating else {})
    with service(url, ANSWER_S) as client:
        response = check(client.get("/admin/feedback", params=wanted))
    try:
        told = FeedbackList.model_validate_json(response.content, extra="ignore")
    except ValueError as error:
        raise click.ClickException(f"what {url} answers is not understood ({type(error).__name__})") from error
    for each in told.feedback:
        for line in _lines(each):
            click.echo(line)
    click.echo(_summary(told))


def _lines(vote: Feedback) -> Iterator[str]:
    at = datetime.fromtimestamp(vote.at).astimezone().strftime("%Y-%m-%d %H:%M")
    ended = f"without {', '.join(vote.degraded)}" if vote.degraded else vote.status
    about = f"  run {vote.run_id}, session {vote.session_id}, {ended}".translate(CONTROLS)
    yield style(f"{at}  {vote.rating}", bold=True) + about
    yield from _indented("question", vote.question)
    yield from _indented("answer", vote.answer or "(none)")
    if vote.comment:
        yield from _indented("comment", vote.comment)
    yield ""


def _indented(title: str, text: str) -> Iterator[str]:
    first, *others = [line.translate(CONTROLS) for line in text.splitlines()] or [""]
    yield f"  {title:<9} {first}"
    for each in others:
        yield f"  {'':<9} {each}"


def _summary(told: FeedbackList) -> str:
    votes = told.up + told.down
    if not votes:
        return "Nobody has voted yet."
    return (
        f"{len(told.feedback)} of {votes:,} votes: {told.up:,} up, {told.down:,} down, {told.up / votes:.0%} satisfied."
    )
