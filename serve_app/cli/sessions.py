"""`serve-app sessions`: the largest conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from serve_app.cli.client import open_client, read_response, url_option
from serve_app.cli.terminal import count_of, format_table, strip_controls
from serve_app.values import SessionSizes

if TYPE_CHECKING:
    from serve_app.values import SessionSize

TIMEOUT_S = 60.0
"""The service examines every conversation."""

TITLES = ("session", "turns", "size", "per turn", "repairs", "expires in")
STEP = 1024


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
    with open_client(url, TIMEOUT_S) as client:
        sizes = read_response(SessionSizes, client.get("/admin/sessions", params={"limit": limit}))
    for line in (*format_table(TITLES, map(_row, sizes.sessions)), _format_summary(sizes)):
        click.echo(line)


def _row(size: SessionSize) -> tuple[str, ...]:
    return (
        strip_controls(size.session_id),
        f"{size.turns:,}",
        _format_bytes(size.bytes),
        _format_bytes(size.bytes / max(size.turns, 1)),
        f"{size.repairs:,}",
        _format_duration(size.expires_in_s),
    )


def _format_summary(sizes: SessionSizes) -> str:
    counted, rows = count_of(sizes.counted, "conversation"), len(sizes.sessions)
    if not sizes.complete:
        return f"{rows} of the {counted} that were examined. There are more."
    if not rows:
        return "There are no conversations."
    return f"All {counted}." if rows == sizes.counted else f"The largest {rows} of {counted}."


def _format_bytes(count: float) -> str:
    if count < STEP:
        return f"{count:.0f} B"
    for unit in ("KB", "MB"):
        count /= STEP
        if count < STEP:
            return f"{count:.1f} {unit}"
    return f"{count / STEP:.1f} GB"


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
