"""Separates the text of a reply into answer, thinking, and tool calls that a model wrote as text.

Models whose server does not parse their template leave its marks in the content: `<think>…</think>`, sometimes without
the beginning, and calls such as `<tool_call>{"name": …, "arguments": …}</tool_call>`. The reader is fed the text piece
by piece, as a stream brings it, or at once, and comes to the same either way. What stands in a code fence, or right
behind a backtick, is text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from serve_app.llm.text_calls import CALL_MARKS, calls_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serve_app.llm.text_calls import TextCall

THINKING_MARKS: dict[str, str] = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "◁think▷": "◁/think▷",
    "<|channel|>analysis<|message|>": "<|end|>",
    "<|channel>thought": "<channel|>",
}
"""By which a model's thinking begins and ends: DeepSeek, Qwen, GLM, Gemma, Seed, Magistral, Kimi, gpt-oss."""
LONE_ENDS = ("</think>", "</thinking>", "</seed:think>", "[/THINK]", "◁/think▷")
"""They may come without their beginning, which then stood in the prompt."""
LEFTOVERS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|return|>",
    "<|start|>assistant",
    "<|channel|>final<|message|>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<｜end▁of▁sentence｜>",
)
"""Marks of a template that say nothing to a reader."""

_OPENERS = (*THINKING_MARKS, *CALL_MARKS, *LONE_ENDS, *LEFTOVERS)
_ANY = re.compile("|".join(map(re.escape, sorted(_OPENERS, key=len, reverse=True))), re.IGNORECASE)
_LONGEST = max(map(len, (*_OPENERS, *THINKING_MARKS.values())))
_STARTS = frozenset("<[◁")
_FENCE = "```"

PartKind = Literal["text", "thinking", "retract"]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a reply; `retract` says that all text before it was thinking."""

    kind: PartKind
    text: str = ""


@dataclass(slots=True)
class TextReader:
    """Reads one reply."""

    is_call: Callable[[TextCall], bool]
    """Whether a call that stands in the text is one; else it stays text."""
    holds: bool = False
    """Whether text waits for the end of the thinking: for a model that never writes its beginning."""
    calls: list[TextCall] = field(default_factory=list)
    answer: str = ""
    """The text so far that is the answer's."""
    has_thought: bool = False
    """Whether any thinking was there."""
    lone_end: bool = False
    """Whether the thinking ended without having begun."""
    _held: str = ""
    _opened: str = ""
    """The mark within which the text stands; empty in the answer."""

    def feed(self, piece: str) -> list[Part]:
        """The parts that are certain after this piece."""
        self._held += piece
        if self.holds and not any(end in self._held for end in LONE_ENDS):
            return []
        self.holds = False
        return list(self._read(last=False))

    def finish(self) -> list[Part]:
        """The parts that were held back; the text has ended."""
        return list(self._read(last=True))

    def _read(self, *, last: bool) -> Iterator[Part]:
        while self._held or (last and self._opened in CALL_MARKS):
            length, opened = len(self._held), self._opened
            if not self._opened:
                yield from self._in_answer(last=last)
            elif self._opened in CALL_MARKS:
                yield from self._in_call(last=last)
            else:
                yield from self._in_thinking(last=last)
            if len(self._held) == length and self._opened == opened:
                return

    def _in_answer(self, *, last: bool) -> Iterator[Part]:
        place = 0
        while found := _ANY.search(self._held, place):
            if not self._is_code(found.start()):
                yield from self._said(self._held[: found.start()])
                self._held = self._held[found.end() :]
                yield from self._mark(_canonical(found.group()))
                return
            place = found.end()
        certain = len(self._held) if last else max(place, _certain(self._held, _OPENERS))
        yield from self._said(self._held[:certain])
        self._held = self._held[certain:]

    def _mark(self, mark: str) -> Iterator[Part]:
        if mark in THINKING_MARKS or mark in CALL_MARKS:
            self._opened = mark
        elif mark in LONE_ENDS:
            self.lone_end = self.has_thought = True
            thought, self.answer = self.answer, ""
            self.calls.clear()
            yield Part("retract")
            if thought.strip():
                yield Part("thinking", thought)

    def _in_thinking(self, *, last: bool) -> Iterator[Part]:
        end = THINKING_MARKS[self._opened]
        place = self._held.lower().find(end.lower())
        self.has_thought = True
        if place < 0:
            certain = len(self._held) if last else _certain(self._held, (end,))
            thought, self._held = self._held[:certain], self._held[certain:]
        else:
            thought, self._held = self._held[:place], self._held[place + len(end) :]
            self._opened = ""
        if thought:
            yield Part("thinking", thought)

    def _in_call(self, *, last: bool) -> Iterator[Part]:
        end = CALL_MARKS[self._opened]
        place = self._held.find(end) if end else -1
        if place < 0 and not last:
            return
        mark = self._opened
        block = self._held if place < 0 else self._held[:place]
        self._held = "" if place < 0 else self._held[place + len(end) :]
        self._opened = ""
        calls = calls_in(mark, block)
        if place < 0 and end and not block.lstrip().startswith(("{", "[")):
            calls = []
        if calls and all(map(self.is_call, calls)):
            self.calls += calls
        else:
            yield from self._said(mark)
            self._held = block + (end if place >= 0 else "") + self._held

    def _said(self, text: str) -> Iterator[Part]:
        if self.has_thought and not self.answer:
            text = text.lstrip()
        if text:
            self.answer += text
            yield Part("text", text)

    def _is_code(self, place: int) -> bool:
        before = self._held[max(0, place - 1) : place] or self.answer[-1:]
        fences = (self.answer + self._held[:place]).count(_FENCE)
        return before == "`" or fences % 2 == 1


def _canonical(mark: str) -> str:
    """The mark as the tables have it, however a model wrote its case."""
    return next(each for each in _OPENERS if each.lower() == mark.lower())


def _certain(text: str, marks: tuple[str, ...]) -> int:
    """How many characters at the beginning can belong to no mark whose rest is still to come."""
    for place in range(max(0, len(text) - _LONGEST), len(text)):
        if text[place] in _STARTS:
            tail = text[place:].lower()
            if any(each.lower().startswith(tail) for each in marks):
                return place
    return len(text)
