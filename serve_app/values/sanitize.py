"""Makes valid text and valid JSON values from any input.

All functions are pure and never raise an `Exception`, because a model, a tool, a server or a file may send anything.
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
"""Levels of nested lists and objects. Pydantic and the parsers of providers give up between 100 and 255."""
MAX_ITEMS = 100_000
"""Values on all levels together. Converting so many takes well under a second."""
MAX_CHARACTERS = 10_000_000
"""Characters in all values together. The same long text may occur in a value a thousand times."""
MAX_INTEGER_BITS = 1023
"""An integer above 1e308 is not a number for JSON readers that only know floats."""
MAX_DIGITS_BITS = 14_000
"""Python does not print an integer of more than 4,300 digits."""


def sanitize_text(text: str) -> str:
    """Return `text` as valid Unicode without NUL.

    A pair of surrogates becomes its character. A lone surrogate, or a NUL, becomes U+FFFD.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", REPLACEMENT) if "\0" in text else text


def truncate(text: str, limit: int) -> str:
    """Return `text` in at most `limit` characters: its beginning, a note, and its end.

    The note says how many characters are missing. If the limit is too small for the note, only the beginning remains.
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
    """Return the JSON value that is nearest to `value`.

    * Text becomes valid, also in keys. A key that is not text becomes its JSON. A duplicate key gets a number.
    * NaN and the infinities become `"NaN"`, `"Infinity"` and `"-Infinity"`, because null means that there is no value.
    * An integer beyond 1e308 becomes the text of its digits. One of more than 4,300 digits becomes a note of its size.
    * Tuples, sets, iterators and arrays become lists, enumerations their value, dataclasses and models objects.
    * Bytes become the text that they encode, dates, decimals and similar types their usual text.
    * Any other object becomes its `str()`.
    * A value that is nested too deep, contains itself, or has too many items or characters is cut, with a note.
    """
    limits = (max_depth, max_items, max_characters)
    if limits == (MAX_DEPTH, MAX_ITEMS, MAX_CHARACTERS) and _is_small_and_valid(value, 3):
        return value
    return _Encoder(*limits).encode(value, 0)


SMALL_ITEMS, SMALL_CHARACTERS = 32, 300
"""Of one container and of one text. Three levels of them are within `MAX_ITEMS` and `MAX_CHARACTERS`."""


def _is_small_and_valid(value: Any, levels: int) -> bool:
    """Return whether `sanitize_json` would surely return an equal value.

    Most values are such, and to find this out takes a tenth of the time.
    """
    kind: type = type(value)
    if kind is str:
        return len(value) <= SMALL_CHARACTERS and sanitize_text(value) is value
    if kind is int:
        return bool(value.bit_length() <= MAX_INTEGER_BITS)
    if kind is float:
        return math.isfinite(value)
    if kind is dict or kind is list:
        within = levels > 0 and len(value) <= SMALL_ITEMS
        keys = value.keys() if kind is dict else ()
        return (
            within
            and all(type(key) is str and _is_small_and_valid(key, 0) for key in keys)
            and all(_is_small_and_valid(each, levels - 1) for each in (value.values() if keys else value))
        )
    return value is None or kind is bool


class _Encoder:
    """Converts one value, and counts the items and characters that it may still use."""

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
        except Exception:  # noqa: BLE001 - foreign code of the value, which may raise anything
            return self._text(_describe(value))

    def _text(self, text: str) -> str:
        whole = sanitize_text(str.__str__(text))
        part = truncate(whole, max(self._characters, 0))
        self._characters -= len(part)
        return part if part or not whole else "…"

    def _composite(self, value: Any, depth: int) -> Any:
        """Encode a container, or a value of a type that JSON does not have."""
        if id(value) in self._open:
            return "[… contains itself …]"
        if depth >= self._max_depth:
            return f"[… nested deeper than {self._max_depth} levels …]"
        self._open.add(id(value))
        try:
            return self._encode_open(value, depth)
        finally:
            self._open.discard(id(value))

    def _encode_open(self, value: Any, depth: int) -> Any:
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
                found[_unique_name("…", found, numbers)] = f"[… {len(value) - place:,} more …]"
                break
            name = _unique_name(self._key(key), found, numbers)
            found[name] = self.encode(each, depth + 1)
        return found

    def _key(self, key: Any) -> str:
        encoded = self.encode(key, self._max_depth - 1)
        return encoded if isinstance(encoded, str) else json.dumps(encoded, ensure_ascii=False)

    def _list(self, values: Iterable[Any], depth: int) -> list[Any]:
        found: list[Any] = []
        try:
            for each in values:
                if self._items <= 0:
                    found.append("[… more …]")
                    break
                found.append(self.encode(each, depth + 1))
        except Exception as error:  # noqa: BLE001 - a foreign iterator; the items before the error stay
            found.append(f"[… ended by {type(error).__name__} …]")
        return found


def _unique_name(name: str, found: Mapping[str, Any], numbers: dict[str, int]) -> str:
    """Return `name`, with a number if it is in use."""
    free = name
    while free in found:
        numbers[name] = numbers.get(name, 1) + 1
        free = f"{name} ({numbers[name]})"
    return free


def _parts(value: Any) -> Any:
    """Return the mapping, iterable, text or number that represents a value of another type."""
    if isinstance(value, bytes | bytearray | memoryview):
        return _decode(bytes(value))
    if isinstance(value, BaseModel):
        return _dump(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    for convert in ("tolist", "to_dict"):  # arrays and tables of numpy, pandas and similar packages
        if callable(getattr(value, convert, None)) and not isinstance(value, type):
            return getattr(value, convert)()
    if isinstance(value, Iterable) and not _has_text_form(value):
        return value
    return to_jsonable_python(value, fallback=_describe)


def _dump(model: BaseModel) -> dict[str, Any]:
    """Return the fields of a model, unserialised if its serialisers fail or it contains itself."""
    try:
        return model.model_dump(warnings=False)
    except Exception:  # noqa: BLE001 - a foreign serialiser
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


def _decode(data: bytes) -> str:
    """Return the text in `data`, or a note of its size if it is binary."""
    text = data.decode("utf-8", "replace")
    strange = sum(text.count(each) for each in (REPLACEMENT, "\0"))
    return text if 2 * strange <= len(text) else f"[… {len(data):,} bytes of binary data …]"


def _has_text_form(value: Any) -> bool:
    """Whether an iterable is better shown as text, such as a path."""
    return hasattr(value, "__fspath__") or hasattr(value, "num_addresses")


def _describe(value: Any) -> str:
    """Return the `str()` of a value of an unknown type."""
    if isinstance(value, type):
        return f"[… the type {value.__name__} …]"
    kind = type(value).__name__
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - a foreign `__str__`
        return f"[… a value of type {kind} …]"
    return f"{kind}: {text}" if isinstance(value, BaseException) else text
