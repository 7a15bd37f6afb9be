"""Puts tool calls together from the pieces in which providers stream them.

OpenAI gives each call an `index` and its name once. Others leave the index out, or say 0 for all; repeat name or id in
each piece, or send new ids; send arguments as an object. What cannot be put together for certain is never a call.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from serve_app.llm.openai_compatible.errors import ReplyUnreadable
from serve_app.values.text import valid_json

MAX_ARGUMENT_CHARACTERS = 1_000_000
_FENCED = re.compile(r"^```[A-Za-z]*\s*(.*?)\s*```$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call as the model made it; `arguments` is None where what it wrote is no JSON object."""

    name: str
    arguments: dict[str, Any] | None
    written: str


@dataclass(slots=True)
class _Begun:
    """A call of which pieces have come."""

    place: int | None
    call_id: str
    name: str
    came_whole: bool
    pieces: list[str] = field(default_factory=list)
    document: Any = None
    """Arguments that came as JSON and not as a string of it."""

    @property
    def written(self) -> str:
        return "".join(self.pieces)

    @property
    def is_whole(self) -> bool:
        """Whether the arguments so far are a JSON object, so that nothing can follow."""
        return self.document is not None or _object(self.written) is not None

    def add(self, arguments: Any) -> None:
        if isinstance(arguments, str):
            if arguments and self.document is not None:
                raise ReplyUnreadable("arguments as an object, and then as text")
            self.pieces.append(arguments)
        elif arguments is not None:
            if self.document is not None or self.written.strip():
                raise ReplyUnreadable("arguments twice")
            self.document = arguments


class CallAssembler:
    """Collects the tool calls of one reply."""

    def __init__(self) -> None:
        self._begun: list[_Begun] = []
        self.characters = 0

    def __len__(self) -> int:
        return len(self._begun)

    def take(self, piece: dict[str, Any], *, whole: bool) -> None:
        """Add a piece of a call; one that came `whole` has no other pieces.

        Raises:
            ReplyUnreadable: nobody can tell which call it belongs to.
        """
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        given_id, name = _string(piece.get("id")), _string(function.get("name"))
        place = piece.get("index") if isinstance(piece.get("index"), int) and not whole else None
        begun = None if whole else self._belongs_to(place, given_id, name)
        if begun is None:
            begun = _Begun(place, given_id, name, whole)
            self._begun.append(begun)
        begun.name, begun.call_id = begun.name or name, begun.call_id or given_id
        arguments = function.get("arguments")
        self.characters += len(arguments) if isinstance(arguments, str) else 0
        begun.add(arguments)

    def finish(self) -> list[Call]:
        """The calls, in the order in which they began.

        Raises:
            ReplyUnreadable: of several calls at one place of a stream, one has no whole arguments.
        """
        for begun in self._begun:
            beside = any(each is not begun and each.place == begun.place for each in self._begun)
            if beside and not begun.came_whole and not begun.is_whole:
                raise ReplyUnreadable("pieces of several tool calls that nothing tells apart")
        return [_call(each) for each in self._begun]

    def _belongs_to(self, place: int | None, given_id: str, name: str) -> _Begun | None:
        """The call that a piece goes on with; None where it begins one."""
        same_place = [each for each in self._begun if each.place == place]
        if not same_place:
            return self._unplaced(given_id, name) if place is None else None
        latest = same_place[-1]
        known = next((each for each in reversed(same_place) if given_id and each.call_id == given_id), None)
        if known is not None and not (name and known.is_whole) and name in {"", known.name}:
            return known
        if not name:
            if len(same_place) > 1 and not same_place[-2].is_whole:
                raise ReplyUnreadable("pieces of several tool calls that nothing tells apart")
            return latest
        goes_on = name == latest.name and not latest.is_whole and given_id in {"", latest.call_id}
        if goes_on or (not latest.name and not latest.is_whole):
            return latest
        if place is not None and not latest.is_whole and given_id in {"", latest.call_id}:
            raise ReplyUnreadable("a tool call that another one interrupts")
        return None

    def _unplaced(self, given_id: str, name: str) -> _Begun | None:
        """The call that a piece without an index goes on with, where the calls before it had one."""
        return self._begun[-1] if self._begun and not name and not given_id else None


def _call(begun: _Begun) -> Call:
    if begun.document is not None:
        document = begun.document if isinstance(begun.document, dict) else None
        written = json.dumps(valid_json(begun.document))
    else:
        written = begun.written
        document = _object(written) if written.strip() else {}
    if len(written) > MAX_ARGUMENT_CHARACTERS:
        document = None
    return Call(begun.name, None if document is None else valid_json(document), written[:MAX_ARGUMENT_CHARACTERS])


def _object(written: str) -> dict[str, Any] | None:
    """The object that arguments are, also where they are fenced, or a string that holds the object; None for others."""
    text = written.strip()
    if not text:
        return None
    if fenced := _FENCED.match(text):
        text = fenced.group(1)
    document = _loaded(text)
    if isinstance(document, str):
        document = _loaded(document)
    if document is _NULL:
        return {}
    return document if isinstance(document, dict) else None


_NULL = object()


def _loaded(text: str) -> Any:
    """The JSON document; None for what is none, has a key twice, or a number that is not one."""
    try:
        document = json.loads(text, strict=False, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return _NULL if document is None else document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key twice")
    return document


def _no_number(name: str) -> Any:
    raise ValueError(name)


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
