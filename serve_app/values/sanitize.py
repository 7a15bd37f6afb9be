"""Valid text and JSON values made of whatever comes from outside.

Everything here is pure and never raises an `Exception`: a model, a tool, a server or a file may have said anything.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
MAX_DEPTH = 64
"""Levels of lists and objects; pydantic and the parsers of providers give up between 100 and 255."""
MAX_ITEMS = 100_000
"""Values in all, at every level together: few enough to take well under a second."""
MAX_CHARACTERS = 10_000_000
"""Characters in all; the same long text may stand in a value a thousand times."""
MAX_INTEGER_BITS = 1023
"""An integer above 1e308 is no number to readers of JSON that know floats only."""
MAX_DIGITS_BITS = 14_000
"""Python prints no integer of over 4,300 digits."""


def sanitize_text(text: str) -> str:
    """Returns `text` as valid Unicode without NUL.

    Two surrogates that are halves of one character are joined; a lone one, and a NUL, become U+FFFD.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", REPLACEMENT) if "\0" in text else text


def truncate(text: str, limit: int) -> str:
    """Returns `text` in at most `limit` characters: its head, its tail, and how much is missing.

    A limit that leaves no room for the note gives the head alone.
    """
    if len(text) <= limit:
        return text
    room = limit - len(_gap(len(text)))
    if room < 2:  # noqa: PLR2004 - one character of each end
        return text[: max(limit, 0)]
    tail = room // 4
    head = room - tail
    return text[:head] + _gap(len(text) - room) + text[len(text) - tail :]


def _gap(missing: int) -> str:
    return f"\n[… {missing:,} characters left out …]\n"


def sanitize_json(
    value: Any,
    *,
    max_depth: int = MAX_DEPTH,
    max_items: int = MAX_ITEMS,
    max_characters: int = MAX_CHARACTERS,
) -> Any:
    """Returns `value` as what JSON can say, as truly as it can be said.

    * Text, keys included, is made valid. A key that is no text becomes its JSON; one that is then taken gets a number.
    * NaN and the infinities become `"NaN"`, `"Infinity"` and `"-Infinity"`: null would say that there is no value.
    * An integer beyond 1e308 becomes the text of its digits, one of over 4,300 digits a note of its size.
    * Tuples, sets, iterators and arrays become lists; enumerations their value; dataclasses and models objects.
    * Bytes become the text that they hold; dates, decimals and the like their usual text; anything else its `str()`.
    * What is nested too deep, contains itself, or exceeds the number of items or characters is cut, with a note.
    """
    return _Encoder(max_depth, max_items, max_characters).encode(value, 0)


class _Encoder:
    """One value being made valid, with what is left of its bounds."""

    def __init__(self, max_depth: int, max_items: int, max_characters: int) -> None:
        self._max_depth = max_depth
        self._items = max_items
        self._characters = max_characters
        self._open: set[int] = set()

    def encode(self, value: Any, depth: int) -> Any:
        self._items -= 1
        try:
            if value is None or isinstance(value, bool | int | float):
                return _number(value)
            if isinstance(value, Enum):
                return self.encode(value.value, depth)
            if isinstance(value, str):
                return self._text(value)
            return self._composite(value, depth)
        except Exception:  # noqa: BLE001 - code of whoever made the value; it may raise anything
            return self._text(_described(value))

    def _text(self, text: str) -> str:
        whole = sanitize_text(str.__str__(text))
        said = truncate(whole, max(self._characters, 0))
        self._characters -= len(said)
        return said if said or not whole else "…"

    def _composite(self, value: Any, depth: int) -> Any:
        """What may hold other values, or is of a kind that JSON does not know."""
        if id(value) in self._open:
            return "[… contains itself …]"
        if depth >= self._max_depth:
            return f"[… nested deeper than {self._max_depth} levels …]"
        self._open.add(id(value))
        try:
            return self._opened(value, depth)
        finally:
            self._open.discard(id(value))

    def _opened(self, value: Any, depth: int) -> Any:
        found = _parts(value)
        if isinstance(found, Mapping):
            return self._object(found, depth)
        if isinstance(found, str):
            return self._text(found)
        if isinstance(found, Iterable):
            return self._list(found, depth)
        return _number(found)

    def _object(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        numbers: dict[str, int] = {}
        for place, (key, each) in enumerate(value.items()):
            if self._items <= 0:
                found[_free("…", found, numbers)] = f"[… {len(value) - place:,} more …]"
                break
            name = _free(self._key(key), found, numbers)
            found[name] = self.encode(each, depth + 1)
        return found

    def _key(self, key: Any) -> str:
        said = self.encode(key, self._max_depth - 1)
        return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)

    def _list(self, values: Iterable[Any], depth: int) -> list[Any]:
        found: list[Any] = []
        try:
            for each in values:
                if self._items <= 0:
                    found.append("[… more …]")
                    break
                found.append(self.encode(each, depth + 1))
        except Exception as error:  # noqa: BLE001 - an iterator of anybody's; what it gave so far stands
            found.append(f"[… ended by {type(error).__name__} …]")
        return found


def _free(name: str, found: Mapping[str, Any], numbers: dict[str, int]) -> str:
    """`name`, or where it is taken, `name` with the next number."""
    free = name
    while free in found:
        numbers[name] = numbers.get(name, 1) + 1
        free = f"{name} ({numbers[name]})"
    return free


def _parts(value: Any) -> Any:
    """The mapping, iterable, text or number that a value of any other kind stands for."""
    if isinstance(value, bytes | bytearray | memoryview):
        return _decoded(bytes(value))
    if isinstance(value, BaseModel):
        return _fields(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    for convert in ("tolist", "to_dict"):  # an array or a table of numpy, pandas and their like
        if callable(getattr(value, convert, None)) and not isinstance(value, type):
            return getattr(value, convert)()
    if isinstance(value, Iterable) and not _whole(value):
        return value
    return to_jsonable_python(value, fallback=_described)


def _fields(model: BaseModel) -> dict[str, Any]:
    """What a model says of itself; where its serialisers fail or it contains itself, its fields as they are."""
    try:
        return model.model_dump(warnings=False)
    except Exception:  # noqa: BLE001 - a serialiser of anybody's
        return dict(model)


def _number(value: float | None) -> Any:
    if value is None or value is True or value is False:
        return value
    return _integer(value) if isinstance(value, int) else _real(value)


def _integer(value: int) -> int | str:
    plain = int.__int__(value)
    bits = plain.bit_length()
    if bits <= MAX_INTEGER_BITS:
        return plain
    if bits <= MAX_DIGITS_BITS:
        return str(plain)
    return f"[… an integer of about {bits * math.log10(2):,.0f} digits …]"


def _real(value: float) -> float | str:
    plain = float.__float__(value)
    if math.isfinite(plain):
        return plain
    return "NaN" if math.isnan(plain) else "Infinity" if plain > 0 else "-Infinity"


def _decoded(data: bytes) -> str:
    """The text that bytes hold, or what they are where less than half of it would be text."""
    text = data.decode("utf-8", "replace")
    strange = sum(text.count(each) for each in (REPLACEMENT, "\0"))
    return text if 2 * strange <= len(text) else f"[… {len(data):,} bytes of binary data …]"


def _whole(value: Any) -> bool:
    """Whether a value that can be iterated over is better said as one: a path, a network of addresses."""
    return hasattr(value, "__fspath__") or hasattr(value, "num_addresses")


def _described(value: Any) -> str:
    """What a value of an unknown kind says of itself."""
    if isinstance(value, type):
        return f"[… the type {value.__name__} …]"
    kind = type(value).__name__
    try:
        said = str(value)
    except Exception:  # noqa: BLE001 - a `__str__` of anybody's
        return f"[… a value of type {kind} …]"
    return f"{kind}: {said}" if isinstance(value, BaseException) else said
