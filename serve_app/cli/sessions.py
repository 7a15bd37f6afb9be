"""Which conversations take up most, as a table?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from serve_app.cli.client import check, service, url_option
from serve_app.cli.table import table
from serve_app.cli.transcript import CONTROLS
from serve_app.values import SessionSizes

if TYPE_CHECKING:
    from serve_app.values import SessionSize

COUNTING_S = 60.0
"""The service looks at every conversation."""

TITLES = ("session", "turns", "size", "per turn", "repairs", "expires in")
STEP = 1024


@click.command()
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="How many are listed.")
@url_option
def sessions(limit: int, url: str) -> None:
    """List the largest conversations of the running service.

    A turn should take up about as much in a long conversation as in a short one. "repairs" counts messages that were
    mended, or left out, because a model could not read them.
    """
    with service(url, COUNTING_S) as client:
        response = check(client.get("/admin/sessions", params={"limit": limit}))
    try:
        sizes = SessionSizes.model_validate_json(response.content, extra="ignore")
    except ValueError as error:
        raise click.ClickException(f"what {url} answers is not understood ({type(error).__name__})") from error
    for line in (*table(TITLES, map(_row, sizes.sessions)), _summary(sizes)):
        click.echo(line)


def _row(size: SessionSize) -> tuple[str, ...]:
    return (
        size.session_id.translate(CONTROLS),
        f"{size.turns:,}",
        _bytes(size.bytes),
        _bytes(size.bytes / max(size.turns, 1)),
        f"{size.repairs:,}",
        _duration(size.expires_in_s),
    )


def _summary(sizes: SessionSizes) -> str:
    counted = f"{sizes.counted:,} {'conversation' if sizes.counted == 1 else 'conversations'}"
    listed = len(sizes.sessions)
    if not sizes.complete:
        return f"{listed} of the {counted} that were counted; there are more, which were not."
    if not listed:
        return "There are no conversations."
    return f"All {counted}." if listed == sizes.counted else f"The largest {listed} of all {counted}."


def _bytes(count: float) -> str:
    if count < STEP:
        return f"{count:.0f} B"
    for unit in ("KB", "MB"):
        count /= STEP
        if count < STEP:
            return f"{count:.1f} {unit}"
    return f"{count / STEP:.1f} GB"


def _duration(seconds: float) -> str:
    """The two largest units."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    if hours:
        return f"{hours} h {minute} min"
    return f"{minutes} min {second} s" if minutes else f"{second} s"
