"""Assembles tool calls from pieces, and reads their arguments.

A reply whose pieces fit in two ways is unreadable.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from serve_app.llm.openai_compatible.provider_error import ReplyUnreadable
from serve_app.values.sanitize import sanitize_text

MAX_CALLS = 1000


class ProviderCall(NamedTuple):
    """A call of the provider.

    `arguments` is a JSON object, or the raw text where `valid` is false.
    """

    name: str
    arguments: str
    id: str | None
    valid: bool


class _Piece(NamedTuple):
    place: int | None
    id: str
    name: str
    arguments: str
    """The text of the arguments; empty if there is none."""
    apart: bool
    """Whether it is of another call than the piece before: both came in one list."""


@dataclass(slots=True)
class _Call:
    index: int | None
    id: str
    name: str
    arguments: list[str] = field(default_factory=list)
    continued: bool = False
    """Whether pieces of arguments came without an id and a name."""
    named_again: bool = False

    @property
    def raw(self) -> str:
        return "".join(self.arguments)

    @property
    def absent(self) -> bool:
        return not any(each.strip() for each in self.arguments)

    @property
    def whole(self) -> bool:
        return _is_object(self.raw)


class CallAssembler:
    """Assembles the tool calls of a reply from pieces in order."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self.characters = 0

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, pieces: Any, *, whole: bool = False) -> None:
        """Take the `tool_calls` of a delta, or with `whole` of a message."""
        for place, item in enumerate(pieces if isinstance(pieces, list) else [pieces]):
            piece = _read_piece(item, place if whole else None, apart=place > 0)
            self.characters += len(piece.arguments)
            self._take(piece)
            if len(self._calls) > MAX_CALLS:
                raise ReplyUnreadable("more tool calls than can be meant")

    def finish(self, *, complete: bool) -> list[ProviderCall]:
        """Return the calls; empty arguments are `{}` only if the reply is complete."""
        self._refuse_doubtful()
        return [_finish_call(call, complete=complete) for call in self._calls]

    def _take(self, piece: _Piece) -> None:
        call = self._candidate(piece)
        if call is None or self._begins(piece, call):
            if not (piece.id or piece.name):
                raise ReplyUnreadable("a piece of a tool call belongs to no call")
            call = _Call(piece.place, piece.id, piece.name)
            self._calls.append(call)
        elif call.named_again and piece.arguments.strip() and not piece.name:
            call = _Call(call.index, piece.id, call.name, continued=True)
            self._calls.append(call)
        else:
            call.continued = call.continued or not (piece.id or piece.name)
            call.named_again = bool(piece.name) and call.whole
            call.id = call.id or piece.id
            call.name = call.name or piece.name
        if piece.arguments:
            call.arguments.append(piece.arguments)

    def _candidate(self, piece: _Piece) -> _Call | None:
        """Return the call that the piece may continue."""
        if not self._calls:
            return None
        if piece.place is None:
            same = self._calls
        else:
            same = [call for call in self._calls if call.index == piece.place]
            if not same and len(self._calls) == 1 and self._calls[0].index is None and not piece.name:
                same = self._calls  # its beginning came without an index
        if piece.id and len(same) > 1:
            known = [call for call in same if call.id == piece.id]
            same = known or same
        return same[-1] if same else None

    def _begins(self, piece: _Piece, call: _Call) -> bool:
        """Return whether a piece that may continue the call begins another."""
        if not piece.name:
            return self._begins_nameless(piece, call)
        if piece.apart and piece.place is None:
            return True
        other_id = bool(piece.id) and bool(call.id) and piece.id != call.id
        other_name = bool(call.name) and piece.name != call.name
        if call.absent:
            if other_name and not other_id:
                raise ReplyUnreadable("two names for one tool call")
            return other_id
        if call.whole:
            return bool(piece.arguments.strip()) or other_id or other_name
        if other_id and _is_object(piece.arguments):
            raise ReplyUnreadable("a tool call inside of another")
        return other_name

    def _begins_nameless(self, piece: _Piece, call: _Call) -> bool:
        other_id = bool(piece.id) and bool(call.id) and piece.id != call.id
        return other_id and not call.absent and call.whole and bool(piece.arguments.strip())

    def _refuse_doubtful(self) -> None:
        """Reject calls whose pieces may belong to another call."""
        calls = self._calls
        if len(calls) < 2:  # noqa: PLR2004
            return
        absent = any(call.absent for call in calls)
        if absent and any(not call.name for call in calls):
            raise ReplyUnreadable("a nameless tool call beside one without arguments")
        places = [call.index for call in calls]
        if None not in places and len(set(places)) == len(places):
            return
        shared = [call for call in calls if call.index is None or places.count(call.index) > 1]
        if any(call.absent for call in shared) and any(call.continued for call in shared):
            raise ReplyUnreadable("arguments that may belong to either of two tool calls")
        if any(not call.absent and not call.whole and call.continued for call in shared):
            raise ReplyUnreadable("tool calls in pieces that do not fit together")


def _read_piece(item: Any, place: int | None, *, apart: bool) -> _Piece:
    if not isinstance(item, dict):
        raise ReplyUnreadable("a tool call that is no object")
    function = item.get("function")
    if not isinstance(function, dict):
        function = item
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        arguments = _dumped(arguments)
    index = place if place is not None else _index(item.get("index"))
    return _Piece(index, _label(item.get("id")), _label(function.get("name")), arguments or "", apart)


def _finish_call(call: _Call, *, complete: bool) -> ProviderCall:
    name, label = sanitize_text(call.name), sanitize_text(call.id) or None
    raw = call.raw
    if call.absent or raw.strip() == "null":
        return ProviderCall(name, "{}" if complete else "", label, valid=complete)
    try:
        return ProviderCall(name, read_arguments(raw), label, valid=True)
    except InvalidArguments:
        return ProviderCall(name, sanitize_text(raw), label, valid=False)


def _is_object(raw: str) -> bool:
    raw = raw.strip()
    if not raw or raw[-1] not in '}"`':
        return False
    try:
        read_arguments(raw)
    except InvalidArguments:
        return False
    return True


def _dumped(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        raise ReplyUnreadable("arguments that cannot be read") from None


def _label(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ReplyUnreadable("a tool call whose name or id is no text")
    return value


def _index(value: Any) -> int | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return int(value)
    except (ValueError, TypeError, OverflowError):
        return None


MAX_DEPTH = 64
_FENCE = "```"
_LANGUAGE = re.compile(r"[A-Za-z]*[ \t]*")
_WRAPPINGS = 3
"""Levels of wrapping around one object: a code fence, and JSON in a JSON string."""


class InvalidArguments(ValueError):
    """The text is no unambiguous JSON object."""


def read_arguments(raw: str) -> str:
    """Return the JSON object in a text, without a code fence or double encoding.

    Raises:
        Invalid: where it is no object, or one with duplicate keys, NaN, or numbers without bound.
    """
    value: Any = raw
    for _ in range(_WRAPPINGS):
        if isinstance(value, dict):
            return write_arguments(value)
        if not isinstance(value, str):
            break
        value = read_json(value)
    if isinstance(value, dict):
        return write_arguments(value)
    raise InvalidArguments("no JSON object")


def read_json(text: str) -> Any:
    """Parse JSON, also in a code fence.

    Raises:
        Invalid: it is no JSON, or is ambiguous: equal keys, NaN.
    """
    text = text.strip()
    if text.startswith(_FENCE) and text.endswith(_FENCE):
        language, _, fenced = text[len(_FENCE) : -len(_FENCE)].partition("\n")
        text = fenced if _LANGUAGE.fullmatch(language) else text
    try:
        return json.loads(text, strict=False, object_pairs_hook=unique_keys, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:  # a ValueError too: an int of over 4,300 digits
        raise InvalidArguments(str(error)[:100]) from None


def write_arguments(value: dict[str, Any]) -> str:
    """Write an object as JSON with valid text and finite numbers."""
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if "\\u0000" in written or sanitize_text(written) is not written:
            written = json.dumps(_clean(value, 0), ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise InvalidArguments(str(error)[:100]) from None
    if written.count("{") + written.count("[") > MAX_DEPTH:
        _clean(value, 0)
    return written


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of its pairs, for `json.loads`; reject equal keys."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise InvalidArguments("a key comes twice")
    return made


def _refuse(constant: str) -> Any:
    raise InvalidArguments(f"{constant} is no JSON")


def _clean(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise InvalidArguments("nested too deep")
    if isinstance(value, str):
        return sanitize_text(value)
    if isinstance(value, list):
        return [_clean(each, depth + 1) for each in value]
    if isinstance(value, dict):
        return unique_keys([(sanitize_text(key), _clean(each, depth + 1)) for key, each in value.items()])
    return value
