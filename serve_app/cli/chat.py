"""`serve-app chat`: a conversation with the running service in a terminal."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click
import httpx
from httpx_sse import EventSource, SSEError

from serve_app.cli.client import check_response, describe_no_answer, describe_refusal, open_client, url_option
from serve_app.cli.terminal import strip_controls
from serve_app.values import (
    Answer,
    Cancelled,
    Failed,
    Reasoning,
    RunRecord,
    RunStarted,
    Token,
    ToolCall,
    ToolRequest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from httpx_sse import ServerSentEvent

PROMPT = "> "
QUIT = "/quit"

READ_TIMEOUT_S = 60.0
"""The service sends a comment every 15 s when it has nothing else to send."""
RESUME_TIMEOUT_S = 30.0
"""How long a broken stream is resumed: longer than the restart of a replica."""
RESUME_WAITS_S = (0.2, 0.5, 1.0, 2.0)
"""The pauses before each attempt to resume. The last one is repeated."""
CANCEL_TIMEOUT_S = 5.0

EVENTS = {kind.event: kind for kind in (RunStarted, Token, Reasoning, ToolRequest, ToolCall, Answer, Failed, Cancelled)}
FINAL_EVENTS = {Answer.event, Failed.event, Cancelled.event}
NO_CONTENT = 204
SERVER_ERROR = 500
MAX_ARGUMENT_CHARACTERS = 60
"""Characters shown of one argument, so that a tool call fits into a line."""


@click.command()
@click.option("--session", metavar="ID", help="Continue this conversation. Without it, a new one begins.")
@url_option
def chat(session: str | None, url: str) -> None:
    """Talk to the running service.

    The answer is shown while it is written, with the tools that are called (⚙) and its sources. If the connection
    breaks, the command connects again for up to 30 s and the answer continues. Ctrl-C cancels an answer. /quit,
    Ctrl-D, or Ctrl-C at the prompt end the conversation.

    Lines from a pipe are answered one after the other. The exit status is 1 if one of them failed.
    """
    session = session or f"chat-{uuid4().hex[:8]}"
    interactive = sys.stdin.isatty()
    if interactive:
        click.echo(f"Session {session} at {url}. {QUIT} ends it; --session {session} continues it later.")
    answered = [_run_turn(url, session, line, interactive=interactive) for line in _lines(interactive=interactive)]
    if not interactive and not all(answered):
        raise click.exceptions.Exit(1)


def _lines(*, interactive: bool) -> Iterator[str]:
    """Yield the user's messages until the end of the input."""
    for line in _typed_lines() if interactive else sys.stdin:
        text = line.encode(errors="replace").decode().strip()  # a terminal in another encoding gives half characters
        if text == QUIT:
            return
        if text:
            yield text


def _typed_lines() -> Iterator[str]:
    with suppress(ImportError):
        import readline  # noqa: F401 - its import gives `input` line editing and a history
    while True:
        try:
            yield input(PROMPT)
        except (EOFError, KeyboardInterrupt):
            click.echo()
            return


def _run_turn(url: str, session: str, text: str, *, interactive: bool) -> bool:
    """Run and show one turn; return whether it was answered."""
    transcript = Transcript(partial(click.echo, nl=False))
    stream = TurnStream(url, {"user_input": text, "session_id": session, "stream": True}, transcript.show)
    try:
        _follow(stream, transcript)
    except KeyboardInterrupt:
        transcript.show_note(_cancel(stream))
        if not interactive:
            raise
    return isinstance(transcript.result, Answer)


def _follow(stream: TurnStream, transcript: Transcript) -> None:
    try:
        stream.follow()
    except click.ClickException as error:
        transcript.show_note(f"error: {error.message}", fg="red")
    except ValueError as error:
        transcript.show_note(
            f"error: {stream.url} sent an answer that cannot be read ({type(error).__name__})", fg="red"
        )


def _cancel(stream: TurnStream) -> str:
    try:
        status = stream.cancel()
    except (click.ClickException, ValueError) as error:
        return f"[not cancelled, the service may finish the answer: {error}]"
    return "[cancelled]" if status == "cancelled" else f"[too late to cancel; the run's status is {status}]"


@dataclass(slots=True)
class Transcript:
    """Writes one turn to the terminal. `result` is its final event, None until then.

    Each method changes its state before it writes: a Ctrl-C may interrupt it directly after the text is visible.
    """

    write: Callable[[str], object]
    result: Answer | Failed | Cancelled | None = None
    _has_text: bool = field(default=False, init=False)
    _mid_line: bool = field(default=False, init=False)
    _open_call: str = field(default="", init=False)
    """The tool call at the end of the current line, while its result is not there."""

    def show(self, event: ServerSentEvent) -> None:
        """Write the event; an event of an unknown kind writes nothing.

        Raises:
            ValueError: the data does not fit the kind of the event.
        """
        kind = EVENTS.get(event.event)
        match kind and kind.model_validate_json(event.data, extra="ignore"):
            case Token() as token:
                self._show_token(token)
            case ToolRequest() as request:
                self._open_line(_format_call(request))
            case ToolCall() as call:
                self._show_result(call)
            case Answer() as answer:
                self.result = answer
                self._show_end(answer)
            case Failed() as failed:
                self.result = failed
                error = failed.error
                self.show_note(f"error: {error.message} ({error.code}, request {error.request_id})", fg="red")
            case Cancelled() as cancelled:
                self.result = cancelled
                self.show_note("[cancelled: there is no answer]", fg="yellow")

    def show_note(self, text: str, **styles: Any) -> None:
        """Write a line that is not part of the answer."""
        self._end_line()
        self.write(click.style(strip_controls(text), **(styles or {"dim": True})) + "\n")

    def _show_token(self, token: Token) -> None:
        if token.restart and self._has_text:
            self.show_note("[the answer starts again; ignore the text above]")
        if self._open_call:
            self._end_line()
        text = strip_controls(token.text)
        self._has_text = bool(text) or (self._has_text and not token.restart)
        if text:
            self._mid_line = not text.endswith("\n")
            self.write(text)

    def _open_line(self, call: str) -> None:
        self._end_line()
        self._mid_line, self._open_call = True, call
        self.write(click.style(f"{call} …", dim=True))

    def _show_result(self, call: ToolCall) -> None:
        """Write the result behind its call, or repeat the call after other output."""
        if self._open_call != _format_call(call):
            self._open_line(_format_call(call))
        attempts = f", {call.attempts} attempts" if call.attempts > 1 else ""
        self._mid_line, self._open_call = False, ""
        self.write(click.style(f" {call.status} {call.elapsed_ms:.0f} ms{attempts}\n", dim=True))

    def _show_end(self, answer: Answer) -> None:
        if not self._has_text:
            self._show_token(Token(text=answer.result))
        for source in dict.fromkeys(_format_source(each.source, each.title) for each in answer.citations):
            self.show_note(source)
        if answer.degraded:
            self.show_note(f"degraded: answered without {', '.join(answer.degraded)}", fg="yellow")
        self._end_line()

    def _end_line(self) -> None:
        was_open = self._mid_line
        self._mid_line, self._open_call = False, ""
        if was_open:
            self.write("\n")


def _format_call(call: ToolRequest | ToolCall) -> str:
    arguments = ", ".join(f"{name}={_format_argument(value)}" for name, value in call.arguments.items())
    return strip_controls(f"⚙ {call.name}({arguments})")


def _format_argument(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= MAX_ARGUMENT_CHARACTERS else text[: MAX_ARGUMENT_CHARACTERS - 1] + "…"


def _format_source(source: str, title: str) -> str:
    return f"  source: {source}, {title}" if title and title != source else f"  source: {source}"


class StreamBroken(Exception):
    """The stream broke before its final event. The run may continue."""


class TurnStream:
    """The event stream of one turn, resumed after each break."""

    def __init__(self, url: str, body: dict[str, Any], show: Callable[[ServerSentEvent], None]) -> None:
        self.url = url
        self._body = body
        self._show = show
        self._key = uuid4().hex
        self._run_id = ""
        self._last_id = "0"
        self._has_shown = False
        self._has_broken = False

    def follow(self) -> None:
        """Show all events to the final one, and resume after breaks.

        After a break without progress, it gives up after half a minute.

        Raises:
            click.ClickException: the service refuses, does not answer, or does not come back.
            ValueError: the answer does not come from this service.
        """
        resumed_at, give_up, waits = None, 0.0, _waits()
        while broken := self._read_to_break():
            if self._last_id != resumed_at:  # there was progress since the last break
                resumed_at, give_up, waits = self._last_id, time.monotonic() + RESUME_TIMEOUT_S, _waits()
            resumable = self._run_id or not self._has_shown
            if not resumable or time.monotonic() > give_up:
                raise click.ClickException(str(broken)) from broken
            self._has_broken = True
            time.sleep(next(waits))

    def cancel(self) -> str:
        """Cancel the run and return its status.

        Raises:
            click.ClickException: the service refuses, or does not answer.
            ValueError: the answer does not come from this service.
        """
        with open_client(self.url, CANCEL_TIMEOUT_S) as client:
            run_id = self._run_id or self._find_run(client)
            return _read_run(client.post(f"/agent/runs/{run_id}/cancel")).status

    def _find_run(self, client: httpx.Client) -> str:
        """Return the run of a message without any event yet: its idempotency key identifies it."""
        headers = {"Idempotency-Key": self._key, "Prefer": "respond-async"}
        return _read_run(client.post("/agent/chat", json=self._body, headers=headers)).run_id

    def _read_to_break(self) -> StreamBroken | None:
        """Show the events of one connection; return None after the final event."""
        try:
            self._read()
        except StreamBroken as broken:
            return broken
        return None

    def _read(self) -> None:
        with open_client(self.url, READ_TIMEOUT_S) as client:
            try:
                with client.stream(**self._request()) as response:
                    self._check(response)
                    for event in read_events(response):
                        self._take(event)
                        if event.event in FINAL_EVENTS:
                            return
            except SSEError as error:
                raise StreamBroken(f"{self.url}: the answer is not a stream of events") from error
            except httpx.TransportError as error:
                if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) and not self._has_broken:
                    raise  # the service was never there
                raise StreamBroken(f"{self.url}: {describe_no_answer(error)}") from error
        raise StreamBroken("the stream ended before the answer did")

    def _request(self) -> dict[str, Any]:
        if not self._run_id:
            headers = {"Idempotency-Key": self._key}
            return {"method": "POST", "url": "/agent/chat", "json": self._body, "headers": headers}
        headers = {"Last-Event-ID": self._last_id}
        return {"method": "GET", "url": f"/agent/runs/{self._run_id}/events", "headers": headers}

    def _check(self, response: httpx.Response) -> None:
        """Raise on a refusal.

        A refusal from a proxy only breaks the stream: a process behind it may be replaced just now.
        """
        if response.status_code == NO_CONTENT:
            raise click.ClickException("the run is over, and its answer did not come")
        from_service = response.headers.get("Content-Type") == "application/json"
        if response.status_code >= SERVER_ERROR and (self._has_broken or not from_service):
            response.read()
            raise StreamBroken(describe_refusal(response))
        check_response(response)

    def _take(self, event: ServerSentEvent) -> None:
        if event.event == Failed.event and event.id == self._last_id and self._run_id:  # the stream failed, not the run
            raise StreamBroken(Failed.model_validate_json(event.data, extra="ignore").error.message)
        self._show(event)
        self._has_shown = True
        self._last_id = event.id or self._last_id
        if event.event == RunStarted.event:
            self._run_id = RunStarted.model_validate_json(event.data, extra="ignore").run_id


def read_events(response: httpx.Response) -> Iterator[ServerSentEvent]:
    """Yield the complete events of the response that have data; comments have none.

    Raises:
        SSEError: the response is not a stream of events.
    """
    return (event for event in EventSource(response).iter_sse() if event.data)


def _waits() -> Iterator[float]:
    return chain(RESUME_WAITS_S, repeat(RESUME_WAITS_S[-1]))


def _read_run(response: httpx.Response) -> RunRecord:
    return RunRecord.model_validate_json(check_response(response).content, extra="ignore")
