"""How is the service talked to in a terminal?"""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import click

from serve_app.cli.client import url_option
from serve_app.cli.following import Turn
from serve_app.cli.transcript import Transcript
from serve_app.values import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPT = "> "
QUIT = "/quit"


@click.command()
@click.option("--session", metavar="ID", help="Go on with this conversation; without it a new one begins.")
@url_option
def chat(session: str | None, url: str) -> None:
    """Talk to the running service.

    The answer is shown as it comes, with the tools that are called (⚙) and the sources it rests on. A connection that
    breaks is made again for half a minute, and the answer goes on. Ctrl-C cancels an answer; /quit, Ctrl-D, or Ctrl-C
    at the prompt end the conversation.

    Lines that are piped in are answered one after the other; then the exit status is 1 if one of them failed.
    """
    session = session or f"chat-{uuid4().hex[:8]}"
    interactive = sys.stdin.isatty()
    if interactive:
        click.echo(f"Session {session} at {url}; {QUIT} ends it, --session {session} goes on with it later.")
    answered = [_turn(url, session, line, interactive=interactive) for line in _lines(interactive=interactive)]
    if not interactive and not all(answered):
        raise click.exceptions.Exit(1)


def _lines(*, interactive: bool) -> Iterator[str]:
    """What the user says, line by line, until the end."""
    for line in _typed() if interactive else sys.stdin:
        text = line.encode(errors="replace").decode().strip()  # a terminal in another encoding gives half characters
        if text == QUIT:
            return
        if text:
            yield text


def _typed() -> Iterator[str]:
    with suppress(ImportError):
        import readline  # noqa: F401 - its import gives `input` line editing and a history
    while True:
        try:
            yield input(PROMPT)
        except (EOFError, KeyboardInterrupt):
            click.echo()
            return


def _turn(url: str, session: str, text: str, *, interactive: bool) -> bool:
    """Show one turn; whether it was answered."""
    transcript = Transcript(partial(click.echo, nl=False))
    turn = Turn(url, {"user_input": text, "session_id": session, "stream": True}, transcript.show)
    try:
        _follow(turn, transcript)
    except KeyboardInterrupt:
        transcript.note(_cancelled(turn))
        if not interactive:
            raise
    return isinstance(transcript.result, Answer)


def _follow(turn: Turn, transcript: Transcript) -> None:
    try:
        turn.follow()
    except click.ClickException as error:
        transcript.note(f"error: {error.message}", fg="red")
    except ValueError as error:
        transcript.note(f"error: what {turn.url} answers is not understood ({type(error).__name__})", fg="red")


def _cancelled(turn: Turn) -> str:
    try:
        status = turn.cancel()
    except (click.ClickException, ValueError) as error:
        return f"[not cancelled, the service may finish the answer: {error}]"
    return "[cancelled]" if status == "cancelled" else f"[too late to cancel; the run's status is {status}]"
