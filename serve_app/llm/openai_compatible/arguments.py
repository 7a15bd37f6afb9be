"""The arguments of a tool call: one JSON object, or nothing that may be run."""

from __future__ import annotations

import json
import re
from typing import Any

from serve_app.values.sanitize import sanitize_text

MAX_DEPTH = 64
_FENCE = "```"
_LANGUAGE = re.compile(r"[A-Za-z]*[ \t]*")
_WRAPPINGS = 3
"""How often a provider may have wrapped one object: a fence, and JSON inside of a JSON string."""


class Invalid(ValueError):
    """The text is no JSON object that means one thing."""


def read_arguments(raw: str) -> str:
    """The object that the text holds, as valid JSON; a fence or a double encoding is taken off.

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
    raise Invalid("no JSON object")


def read_json(text: str) -> Any:
    """What the text holds as JSON, perhaps in a code fence.

    Raises:
        Invalid: it is none, or means no one thing, as with a key that comes twice, or NaN.
    """
    text = text.strip()
    if text.startswith(_FENCE) and text.endswith(_FENCE):
        language, _, fenced = text[len(_FENCE) : -len(_FENCE)].partition("\n")
        text = fenced if _LANGUAGE.fullmatch(language) else text
    try:
        return json.loads(text, strict=False, object_pairs_hook=unique_keys, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:  # a ValueError too: an int of over 4,300 digits
        raise Invalid(str(error)[:100]) from None


def write_arguments(value: dict[str, Any]) -> str:
    """The object as JSON, its text valid and its numbers finite."""
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if "\\u0000" in written or sanitize_text(written) is not written:
            written = json.dumps(_cleaned(value, 0), ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise Invalid(str(error)[:100]) from None
    if written.count("{") + written.count("[") > MAX_DEPTH:
        _cleaned(value, 0)
    return written


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of its pairs, for `json.loads`; refuses a key that comes twice."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Invalid("a key comes twice")
    return made


def _refuse(constant: str) -> Any:
    raise Invalid(f"{constant} is no JSON")


def _cleaned(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise Invalid("nested too deep")
    if isinstance(value, str):
        return sanitize_text(value)
    if isinstance(value, list):
        return [_cleaned(each, depth + 1) for each in value]
    if isinstance(value, dict):
        return unique_keys([(sanitize_text(key), _cleaned(each, depth + 1)) for key, each in value.items()])
    return value
