"""Puts a reply together: the one decoder for whole bodies and for streams.

A whole body is taken as one piece of a stream, so that the same reply has the same meaning either way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from serve_app.llm.openai_compatible.calls import Call, CallAssembler
from serve_app.llm.openai_compatible.errors import ReplyIncomplete, ReplyUnreadable, error_of
from serve_app.values.text import valid_text

MAX_CHARACTERS = 8_000_000
"""Of a reply: no model writes as much, and no run could keep it."""
COMPLETE = frozenset(
    {"stop", "tool_calls", "function_call", "tool_call", "end_turn", "eos", "eos_token", "stop_sequence"}
)
"""The finish reasons with which a reply's tool calls are whole."""
_TEXT_PARTS = frozenset({"text", "output_text"})
_THINKING_PARTS = frozenset({"thinking", "reasoning", "reasoning_text"})


@dataclass(slots=True)
class Piece:
    """What one part of a reply adds."""

    text: str = ""
    reasoning: str = ""


@dataclass(slots=True)
class Usage:
    """The tokens as a provider counted them."""

    read: int
    written: int
    cached: int = 0
    reasoned: int = 0


@dataclass(slots=True)
class _Text:
    """Text that comes in pieces; a character that is split over two of them waits for its other half."""

    _half: str = ""

    def feed(self, piece: str) -> str:
        if not piece:
            return ""
        text, self._half = self._half + piece, ""
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return valid_text(text)

    def finish(self) -> str:
        half, self._half = self._half, ""
        return valid_text(half)


@dataclass(slots=True)
class ReplyAssembler:
    """Collects one reply."""

    accepts_done_as_end: bool = False
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str = ""
    reply_id: str = ""
    refusal: str = ""
    done: bool = False
    _calls: CallAssembler = field(default_factory=CallAssembler)
    _text: _Text = field(default_factory=_Text)
    _reasoning: _Text = field(default_factory=_Text)
    _characters: int = 0
    _taken: bool = False
    """Whether anything came that is a part of a reply."""

    def take(self, document: Any, *, whole: bool = False) -> Piece:
        """What a chunk adds, or the body of a reply that came whole.

        Raises:
            ProviderError: it is an error.
            ReplyUnreadable: it is no part of a reply, or the reply is too long.
        """
        choices = document.get("choices") if isinstance(document, dict) else None
        if not choices and (error := error_of(document)):
            raise error
        if isinstance(document, dict) and document.get("error") and (error := error_of(document)):
            raise error
        if not isinstance(document, dict) or not (choices is None or isinstance(choices, list)):
            raise ReplyUnreadable("neither an object with choices nor an error")
        self._taken = True
        self.model = self.model or _string(document.get("model"))
        self.reply_id = self.reply_id or _string(document.get("id"))
        self._count(document.get("usage"))
        choice = _first(choices or [])
        if choice is None:
            if whole:
                raise ReplyUnreadable("no choice")
            return Piece()
        self._count(choice.get("usage"))
        self.finish_reason = _string(choice.get("finish_reason")) or self.finish_reason
        said = choice.get("delta") or choice.get("message")
        return self._said(said, whole=whole or "delta" not in choice) if isinstance(said, dict) else Piece()

    def end(self) -> tuple[Piece, list[Call]]:
        """The text that was held back, and the tool calls; no call of a reply that was cut off.

        Raises:
            ReplyIncomplete: the bytes ended, and the reply did not.
            ReplyUnreadable: the pieces of its calls cannot be put together.
        """
        if not self._taken:
            raise ReplyUnreadable("no part of a reply came")
        if self.finish_reason is None and not (self.done and self.accepts_done_as_end):
            raise ReplyIncomplete("the reply ended without a finish_reason")
        piece = Piece(self._text.finish(), self._reasoning.finish())
        return piece, self._calls.finish() if self.is_complete else []

    @property
    def is_complete(self) -> bool:
        """Whether the reply ended as its model wanted."""
        return self.finish_reason is None or self.finish_reason.lower() in COMPLETE

    @property
    def begun_calls(self) -> int:
        """How many tool calls the reply has begun."""
        return len(self._calls)

    def _said(self, said: dict[str, Any], *, whole: bool) -> Piece:
        text, reasoning, refusal = _parts(said.get("content"))
        thought = said.get("reasoning_content") or said.get("reasoning")
        reasoning += thought if isinstance(thought, str) else ""
        self.refusal += refusal + _string(said.get("refusal"))
        calls = said.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            if isinstance(call, dict):
                self._calls.take(call, whole=whole)
        if isinstance(said.get("function_call"), dict):
            self._calls.take({"function": said["function_call"]}, whole=whole)
        self._characters += len(text) + len(reasoning)
        if self._characters + self._calls.characters > MAX_CHARACTERS:
            raise ReplyUnreadable("the reply is too long")
        return Piece(self._text.feed(text), self._reasoning.feed(reasoning))

    def _count(self, usage: Any) -> None:
        """Take the latest running total; some providers repeat it in each chunk."""
        if not isinstance(usage, dict):
            return
        read, written = _number(usage.get("prompt_tokens")), _number(usage.get("completion_tokens"))
        if read or written:
            cached = _number(_in(usage.get("prompt_tokens_details"), "cached_tokens"))
            reasoned = _number(_in(usage.get("completion_tokens_details"), "reasoning_tokens"))
            self.usage = Usage(read, written, cached, reasoned)


def _first(choices: list[Any]) -> dict[str, Any] | None:
    """The choice that is the answer, where several were made."""
    known = [each for each in choices if isinstance(each, dict)]
    return next((each for each in known if not each.get("index")), None)


def _parts(content: Any) -> tuple[str, str, str]:
    """The text, the thinking and the refusal of a content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content, "", ""
    text, reasoning, refusal = "", "", ""
    for part in content if isinstance(content, list) else []:
        if isinstance(part, str):
            text += part
        elif isinstance(part, dict):
            kind = part.get("type")
            if kind in _TEXT_PARTS or kind is None:
                text += _string(part.get("text"))
            elif kind in _THINKING_PARTS:
                reasoning += _joined(part.get(str(kind)) or part.get("text") or part.get("thinking"))
            elif kind == "refusal":
                refusal += _string(part.get("refusal"))
    return text, reasoning, refusal


def _joined(thinking: Any) -> str:
    """Thinking as text: Mistral has parts within the part."""
    if isinstance(thinking, list):
        return "".join(_string(each.get("text")) if isinstance(each, dict) else _string(each) for each in thinking)
    return _string(thinking)


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _in(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _number(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 <= value < 1e12 else 0  # noqa: PLR2004 - no call uses more
