"""How does a turn look in a terminal, event by event?"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from click import style

from serve_app.values import Answer, Cancelled, Failed, Reasoning, RunStarted, Token, ToolCall, ToolRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve_app.cli.frames import Frame

KINDS = {kind.event: kind for kind in (RunStarted, Token, Reasoning, ToolRequest, ToolCall, Answer, Failed, Cancelled)}

CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])
"""What a terminal would obey instead of showing; tab and line feed stay."""

SHOWN_CHARACTERS = 60
"""Of one argument: a call should stay on its line."""


@dataclass(slots=True)
class Transcript:
    """Writes one turn; `result` is how it ended, None while it has not."""

    write: Callable[[str], object]
    result: Answer | Failed | Cancelled | None = None
    _has_text: bool = field(default=False, init=False)
    _mid_line: bool = field(default=False, init=False)
    _open_call: str = field(default="", init=False)
    """The call at the end of which the cursor stands."""

    def show(self, frame: Frame) -> None:
        """Write what `frame` brings; an event that this version does not know brings nothing.

        Raises:
            ValueError: its data are not what its event says.
        """
        kind = KINDS.get(frame.event)
        match kind and kind.model_validate_json(frame.data, extra="ignore"):
            case Token() as token:
                self._token(token)
            case ToolRequest() as request:
                self._begin(_call(request))
            case ToolCall() as call:
                self._finish(call)
            case Answer() as answer:
                self.result = answer
                self._close(answer)
            case Failed() as failed:
                self.result = failed
                error = failed.error
                self.note(f"error: {error.message} ({error.code}, request {error.request_id})", fg="red")
            case Cancelled() as cancelled:
                self.result = cancelled
                self.note("[cancelled: there is no answer]", fg="yellow")

    def note(self, text: str, **styles: Any) -> None:
        """A line that is not the answer's."""
        self._end_line()
        self.write(style(text.translate(CONTROLS), **(styles or {"dim": True})) + "\n")

    def _token(self, token: Token) -> None:
        if token.restart and self._has_text:
            self.note("[the answer starts again; what stands above no longer counts]")
        if self._open_call:
            self._end_line()
        if text := token.text.translate(CONTROLS):
            self.write(text)
            self._mid_line = not text.endswith("\n")
        self._has_text = bool(text) or (self._has_text and not token.restart)

    def _begin(self, call: str) -> None:
        self._end_line()
        self.write(style(f"{call} …", dim=True))
        self._mid_line, self._open_call = True, call

    def _finish(self, call: ToolCall) -> None:
        """Behind its call, where nothing was written since; calls of one step run together."""
        if self._open_call != _call(call):
            self._begin(_call(call))
        tries = f", {call.attempts} attempts" if call.attempts > 1 else ""
        self.write(style(f" {call.status} {call.elapsed_ms:.0f} ms{tries}\n", dim=True))
        self._mid_line, self._open_call = False, ""

    def _close(self, answer: Answer) -> None:
        if not self._has_text:
            self._token(Token(text=answer.result))
        for source in dict.fromkeys(_source(each.source, each.title) for each in answer.citations):
            self.note(source)
        if answer.degraded:
            self.note(f"degraded: answered without {', '.join(answer.degraded)}", fg="yellow")
        self._end_line()

    def _end_line(self) -> None:
        if self._mid_line:
            self.write("\n")
        self._mid_line, self._open_call = False, ""


def _call(call: ToolRequest | ToolCall) -> str:
    arguments = ", ".join(f"{name}={_shown(value)}" for name, value in call.arguments.items())
    return f"⚙ {call.name}({arguments})".translate(CONTROLS)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _source(source: str, title: str) -> str:
    return f"  source: {source}, {title}" if title and title != source else f"  source: {source}"
