"""Hypothesis strategies for replies: their meaning, and their form on the way."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hypothesis import strategies as st
from reply_bytes import ABSENT, USAGE, Framing, Json, ModelReply, cut, raw_call, streamed, whole
from reply_kinds import ReplyKind, closing_reply

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy
    from strict_provider import HttpReply, ModelRequest

THOUGHT = "MUSING"
"""Stands in all thinking, and in nothing else."""
COMPLETE = ("stop", "tool_calls")
INCOMPLETE = ("length", "content_filter", "sensitive", "network_error", "error", None)
Form = Literal["exact", "spaced", "twice", "fenced", "object", "cut", "list", "nan", "two", "empty", "null"]
SOUND: tuple[Form, ...] = ("exact", "spaced", "twice", "fenced", "object")
"""Forms of arguments that are complete."""
MEANS_BOOK = ("book", "functions.book", "Book")
Shape = Literal["indexed", "bare", "null", "zero", "named", "identified"]
SHAPES: tuple[Shape, ...] = ("indexed", "bare", "null", "zero", "named", "identified")
"""Ways in which the pieces of calls name their call."""


@dataclass(frozen=True, slots=True)
class Booking:
    """One call that books so many seats; `form` is how its arguments are written."""

    seats: int
    form: Form = "exact"
    name: str = "book"

    @property
    def sound(self) -> bool:
        return self.form in SOUND

    def call(self, turn: str, called: Any) -> Json:
        return raw_call(self.name, self._arguments(turn), called)

    def _arguments(self, turn: str) -> Any:
        made = {"turn": turn, "seats": self.seats}
        written = json.dumps(made)
        forms: dict[Form, Any] = {
            "exact": written,
            "spaced": f"\n {written} \n",
            "twice": json.dumps(written),
            "fenced": f"```json\n{written}\n```",
            "object": made,
            "cut": written[:-3],
            "list": json.dumps([made]),
            "nan": written[:-1] + ', "x": NaN}',
            "two": written + written,
            "empty": "",
            "null": None,
        }
        return forms[self.form]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A reply and its form on the way."""

    text: str
    thinking: Literal["", "tags", "lone end", "field", "parts"]
    bookings: tuple[Booking, ...]
    finish: str | None
    usage: Any
    shape: Shape
    ids: Literal["own", "none", "same"]
    splits: tuple[int, ...]
    """Where texts and arguments are cut, as far as they reach."""
    framing: Framing
    cut_at: float | None
    """The share of the bytes after which it ends; None is all of them."""
    ends: Literal["whole", "close", "abort"]
    mends: bool
    """Whether the second try brings all of it."""

    @property
    def complete(self) -> bool:
        return self.cut_at is None and self.finish in COMPLETE

    @property
    def booked(self) -> list[str]:
        """The deeds if the whole reply is taken."""
        return [f"book {each.seats}" for each in self.bookings if each.sound and each.name in MEANS_BOOK]

    @property
    def doubles(self) -> list[str]:
        """What two objects in one call's arguments do where each piece has the name: that may be two calls."""
        named = self.bookings if self.shape == "named" else ()
        return [f"book {each.seats}" for each in named if each.form == "two" and each.name in MEANS_BOOK] * 2

    def reply_of(self, turn: str) -> ModelReply:
        """The reply for a turn."""
        calls = [each.call(turn, self._id(place)) for place, each in enumerate(self.bookings)]
        message: Json = {"role": "assistant", "content": self._content()}
        message |= {"reasoning_content": THOUGHT} if self.thinking == "field" else {}
        message |= {"tool_calls": calls} if calls else {}
        deltas = (*self._text_deltas(message), *self._call_deltas(calls))
        return ModelReply(message=message, finish=self.finish, usage=self.usage, deltas=deltas)

    def reply(self, ask: ModelRequest, turn: str) -> HttpReply:
        if ask.step:
            return streamed(closing_reply(ask)) if ask.stream else whole(closing_reply(ask))
        made = streamed(self.reply_of(turn), self.framing) if ask.stream else whole(self.reply_of(turn))
        if self.cut_at is None or (self.mends and ask.number):
            return made
        return cut(made, int(self.cut_at * sum(map(len, made.pieces))), self.ends)

    def make_kind(self) -> ReplyKind:
        return ReplyKind(name="generated", whole=self.reply, streamed=self.reply, right=())

    def _id(self, place: int) -> Any:
        return {"own": f"call_{place}", "none": ABSENT, "same": "call_0"}[self.ids]

    def _content(self) -> Any:
        if self.thinking == "parts":
            return [{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": self.text}]
        before = {"tags": f"<think>{THOUGHT}</think>", "lone end": f"{THOUGHT}</think>"}.get(self.thinking, "")
        return before + self.text

    def _text_deltas(self, message: Json) -> list[Json]:
        head = {key: value for key, value in message.items() if key not in {"content", "tool_calls"}}
        content = message["content"]
        if not isinstance(content, str):
            return [{**head, "content": content}]
        return [{**head, "content": ""}, *({"content": each} for each in self._split(content))]

    def _call_deltas(self, calls: list[Json]) -> list[Json]:
        made: list[Json] = []
        for place, call in enumerate(calls):
            arguments = call["function"]["arguments"]
            parts = self._split(arguments) if isinstance(arguments, str) and arguments else [arguments]
            for number, part in enumerate(parts):
                made.append({"tool_calls": [self._piece(place, number, call, part)]})
        return made

    def _piece(self, place: int, number: int, call: Json, part: Any) -> Json:
        index: Json = {
            "bare": {}, "null": {"index": None}, "zero": {"index": 0},
        }.get(self.shape, {"index": place})  # fmt: skip
        function = {"arguments": part}
        if not number or self.shape == "named":
            function = {"name": call["function"]["name"], **function}
        first = {key: value for key, value in call.items() if key != "function"}
        again = {"id": call["id"]} if self.shape == "identified" and "id" in call else {}
        return {**index, **(again if number else first), "function": function}

    def _split(self, text: str) -> list[str]:
        """The text, cut at the places of `splits` that it reaches."""
        places = sorted({0, *(each for each in self.splits if each < len(text)), len(text)})
        return [text[a:b] for a, b in itertools.pairwise(places)]


letters = st.characters(codec="utf-8") | st.sampled_from('🦉\ud83e\udd89\x00<>`{}[]"\\ \n')
usages: SearchStrategy[Any] = st.sampled_from(
    [USAGE, ABSENT, None, {}, {"prompt_tokens": 4.0, "completion_tokens": None}, {"prompt_tokens": "4"}]
)
framings = st.builds(
    Framing,
    line=st.sampled_from(["\n", "\r\n", "\r"]),
    prefix=st.sampled_from(["data: ", "data:"]),
    before=st.sampled_from(["", "\ufeff", ": hello\n\n", "\n\n"]),
    between=st.sampled_from(["", ": ping\n\n", "event: message\nid: 1\n", "data:\n\n"]),
    done=st.booleans(),
    piece=st.integers(0, 60),
    finish_with_last=st.booleans(),
)


@st.composite
def plans(draw: st.DrawFn, *, complete: bool | None = None, calls: bool | None = None, thinks: bool = False) -> Plan:
    """Replies of all shapes; `complete` and `calls` leave only those that are so, or are not."""
    bookings = draw(_bookings()) if calls is not False else ()
    if calls and not bookings:
        bookings = (Booking(7),)
    whole_one = draw(st.booleans()) if complete is None else complete
    broken = None if whole_one else draw(st.sampled_from(["finish", "cut"]))
    thinking: Any = draw(st.sampled_from(["tags", "lone end", "field", "parts"] if thinks else ["", "tags", "field"]))
    return Plan(
        text=draw(st.text(letters, max_size=60)) if bookings else draw(st.text(letters, max_size=60)) + " said.",
        thinking=thinking,
        bookings=bookings,
        finish=draw(st.sampled_from(INCOMPLETE if broken == "finish" else COMPLETE)),
        usage=draw(usages),
        shape=draw(st.sampled_from(SHAPES if all(each.name for each in bookings) else SHAPES[:1])),
        ids="own" if len(bookings) > 1 and draw(st.booleans()) else draw(st.sampled_from(["own", "none", "same"])),
        splits=tuple(draw(st.lists(st.integers(1, 70), max_size=8))),
        framing=draw(framings),
        cut_at=draw(st.floats(0, 1, exclude_max=True)) if broken == "cut" else None,
        ends=draw(st.sampled_from(["whole", "close", "abort"])),
        mends=draw(st.booleans()),
    )


@st.composite
def _bookings(draw: st.DrawFn) -> tuple[Booking, ...]:
    seats = draw(st.lists(st.integers(1, 800), max_size=3, unique=True))
    forms = st.sampled_from(SOUND) | st.sampled_from(("exact", "cut", "list", "nan", "two", "empty", "null"))
    names = st.sampled_from(["book", "book", "book", "book", "functions.book", "Book", "buy", "", "预订"])
    return tuple(Booking(each, draw(forms), draw(names)) for each in seats)


def is_unambiguous(plan: Plan) -> bool:
    """Whether a client can tell the calls of a stream apart, each by its place, or by its id and its end."""
    if plan.doubles or not all(each.name for each in plan.bookings):
        return False
    if len(plan.bookings) < 2 or plan.shape in {"indexed", "named", "identified"}:
        return True
    return plan.ids == "own" and all(each.sound for each in plan.bookings)
