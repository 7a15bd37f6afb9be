"""Separates the text of a reply into answer, thinking and written tool calls.

If a server does not parse its model's template, the marks stay in the content: `<think>…</think>`, sometimes without
the beginning, and calls such as `<tool_call>{"name": …, "arguments": …}</tool_call>`. The reader takes the text in
pieces or at once, with the same result. Marks in a code fence, or right after a backtick, are text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Literal

from serve_app.llm.text_calls import CALL_MARKS, parse_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

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
"""Begin and end of thinking: DeepSeek, Qwen, GLM, Gemma, Seed, Magistral, Kimi, gpt-oss."""
LONE_ENDS = ("</think>", "</thinking>", "</seed:think>", "[/THINK]", "◁/think▷")
"""Ends that may come without their beginning, which was then in the prompt."""
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
"""Marks of a template that are removed."""

MAX_BROKEN = 128
"""The most marks of calls that turn out to be none; more such marks are text at once."""

_OPENERS = (*THINKING_MARKS, *CALL_MARKS, *LONE_ENDS, *LEFTOVERS)
_ENDS = {**THINKING_MARKS, **CALL_MARKS}
_LONGEST = max(map(len, (*_OPENERS, *_ENDS.values())))
_START = re.compile("[<\\[◁]")
"""The first character of every mark."""
_FENCE = "```"


def _any_of(marks: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))), re.IGNORECASE)


_ANY = _any_of(_OPENERS)
_LONE_END = _any_of(LONE_ENDS)
_END = {mark: _any_of([end]) for mark, end in _ENDS.items() if end}
_NEVER = re.compile(r"(?!)")

PartKind = Literal["text", "thinking", "retract"]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a reply; `retract`: all text before it was thinking."""

    kind: PartKind
    text: str = ""


@dataclass(slots=True)
class TextReader:
    """Reads the text of one reply, in time linear in its length."""

    is_call: Callable[[TextCall], bool]
    """Decides whether a call in the text is real; else it stays text."""
    holds_text: bool = False
    """Whether text is held until the end of the thinking: for a model that never writes its beginning."""
    calls: list[TextCall] = field(default_factory=list)
    has_thought: bool = False
    """Whether the reply has thinking."""
    lone_end: bool = False
    """Whether an end of thinking came without a beginning."""
    _answer: list[str] = field(default_factory=list)
    _held: str = ""
    _at: int = 0
    """The place in the held text up to which it is read."""
    _pieces: list[str] = field(default_factory=list)
    """The pieces after the held text."""
    _awaited: re.Pattern[str] | None = None
    """The pattern to wait for: before it comes, nothing more can be returned."""
    _tail: str = ""
    _opened: str = ""
    """The mark that is open; empty in the answer."""
    _fences: int = 0
    """Code fences in the answer so far."""
    _ticks: int = 0
    """Backticks at the end of the answer that make no fence yet."""
    _behind_tick: bool = False
    _broken: int = 0
    """Marks of calls that turned out to be none."""

    def __post_init__(self) -> None:
        self._awaited = _LONE_END if self.holds_text else None

    @property
    def answer(self) -> str:
        """The text of the answer so far."""
        return "".join(self._answer)

    def feed(self, piece: str) -> list[Part]:
        """Take a piece; return the parts that are certain now."""
        seen = self._tail + piece
        self._tail = seen[-_LONGEST:]
        if not (self._opened or self._held or self._awaited or self._pieces or _START.search(piece)):  # plain text
            self._count_fences(piece)
            return list(self._add_answer(piece))
        self._pieces.append(piece)
        if self._awaited and not self._awaited.search(seen):
            return []
        return list(self._read(last=False))

    def finish(self) -> list[Part]:
        """End the text; return the parts that were held back."""
        return list(self._read(last=True))

    def _read(self, *, last: bool) -> Iterator[Part]:
        self._held, self._at, self._awaited = self._held + "".join(self._pieces), 0, None
        self._pieces.clear()
        before: tuple[int, str] | None = None
        while before != (self._at, self._opened):
            before = self._at, self._opened
            if not self._opened:
                yield from self._in_answer(last=last)
            elif self._opened in CALL_MARKS:
                yield from self._in_call(last=last)
            else:
                yield from self._in_thinking(last=last)
        self._held = self._held[self._at :]

    def _in_answer(self, *, last: bool) -> Iterator[Part]:
        held = self._held
        place = counted = self._at
        while found := _ANY.search(held, place):
            self._count_fences(held[counted : found.start()])
            counted, place = found.start(), found.end()
            if not (self._behind_tick or self._fences % 2):
                yield from self._add_answer(held[self._at : counted])
                self._at = place
                yield from self._open_mark(_canonical(found.group()))
                return
        certain = len(held) if last else max(place, _certain_length(held, _OPENERS))
        self._count_fences(held[counted:certain])
        yield from self._add_answer(held[self._at : certain])
        self._at = certain

    def _open_mark(self, mark: str) -> Iterator[Part]:
        if mark in CALL_MARKS and self._broken >= MAX_BROKEN:
            yield from self._add_answer(mark)
        elif mark in _ENDS:
            self._opened = mark
        elif mark in LONE_ENDS:
            self.lone_end = self.has_thought = True
            thought = self.answer
            self._answer.clear()
            self.calls.clear()
            self._fences, self._ticks, self._behind_tick = 0, 0, False
            yield Part("retract")
            if thought.strip():
                yield Part("thinking", thought)

    def _in_thinking(self, *, last: bool) -> Iterator[Part]:
        found = _END[self._opened].search(self._held, self._at)
        self.has_thought = True
        if found:
            certain, after = found.span()
            self._opened = ""
        else:
            end = THINKING_MARKS[self._opened]
            certain = after = len(self._held) if last else max(self._at, _certain_length(self._held, (end,)))
        thought, self._at = self._held[self._at : certain], after
        if thought:
            yield Part("thinking", thought)

    def _in_call(self, *, last: bool) -> Iterator[Part]:
        mark, end = self._opened, _END.get(self._opened)
        found = end.search(self._held, self._at) if end else None
        if not found and not last:
            self._awaited = end or _NEVER
            return
        until, after = found.span() if found else (len(self._held), len(self._held))
        block = self._held[self._at : until]
        self._opened = ""
        broken_off = end and not found and not block.lstrip().startswith(("{", "["))
        calls = [] if broken_off else parse_calls(mark, block)
        if calls and all(map(self.is_call, calls)):
            self.calls += calls
            self._at = after
        else:  # the mark is text, and what follows is read as such
            self._broken += 1
            self._count_fences(mark)
            yield from self._add_answer(mark)

    def _add_answer(self, text: str) -> Iterator[Part]:
        if self.has_thought and not self._answer:
            text = text.lstrip()
        if text:
            self._answer.append(text)
            yield Part("text", text)

    def _count_fences(self, text: str) -> None:
        """Count the code fences in a text of the answer."""
        if text:
            joined = "`" * self._ticks + text
            self._fences += joined.count(_FENCE)
            self._ticks = (len(joined) - len(joined.rstrip("`"))) % len(_FENCE)
            self._behind_tick = joined.endswith("`")


def _canonical(mark: str) -> str:
    """Return the mark as in the tables, whatever its case."""
    return next(each for each in _OPENERS if each.lower() == mark.lower())


def _certain_length(text: str, marks: tuple[str, ...]) -> int:
    """Return the length of the beginning that is in no unfinished mark."""
    begun = _beginnings(marks)
    starts = (found.start() for found in _START.finditer(text, max(0, len(text) - _LONGEST)))
    return next((place for place in starts if text[place:].lower() in begun), len(text))


@cache
def _beginnings(marks: tuple[str, ...]) -> frozenset[str]:
    return frozenset(mark[:length].lower() for mark in marks for length in range(1, len(mark)))
