"""How is the service talked to in a terminal?"""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import click

from serve_app.cli.client import check, service, url_option
from serve_app.cli.frames import frames
from serve_app.cli.transcript import Transcript
from serve_app.values import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator

SILENCE_S = 60.0
"""The service breaks a longer one every 15 s by a comment."""

PROMPT = "> "
QUIT = "/quit"


@click.command()
@click.option("--session", metavar="ID", help="Go on with this conversation; without it a new one begins.")
@url_option
def chat(session: str | None, url: str) -> None:
    """Talk to the running service.

    The answer is shown as it comes, with the tools that are called (⚙) and the sources it rests on. Ctrl-C stops
    showing an answer; /quit, Ctrl-D, or Ctrl-C at the prompt end the conversation.

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
    try:
        _follow(url, session, text, transcript)
    except KeyboardInterrupt:
        if not interactive:
            raise
        transcript.note("[not shown further; the service finishes the answer]")
    return isinstance(transcript.result, Answer)


def _follow(url: str, session: str, text: str, transcript: Transcript) -> None:
    body = {"user_input": text, "session_id": session, "stream": True}
    try:
        with service(url, SILENCE_S) as client, client.stream("POST", "/agent/chat", json=body) as response:
            for frame in frames(check(response).iter_bytes()):
                transcript.show(frame)
    except click.ClickException as error:
        transcript.note(f"error: {error.message}", fg="red")
        return
    except ValueError as error:
        transcript.note(f"error: what {url} answers is not understood ({type(error).__name__})", fg="red")
        return
    if transcript.result is None:
        transcript.note("error: the stream ended before the answer did", fg="red")
