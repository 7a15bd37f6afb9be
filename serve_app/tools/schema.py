"""A model's arguments, read as a JSON schema asks for them; the same for tools of every kind."""

from __future__ import annotations

import json
import logging
import math
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import validator_for
from referencing import Registry

from serve_app.tools.tool import WrongArguments
from serve_app.values.sanitize import MAX_INTEGER_BITS, sanitize_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

logger = logging.getLogger(__name__)

TOLD_AT_MOST, LENGTH = 5, 200
MAX_DEPTH = 64
"""Levels of nesting in arguments; deeper ones are refused, as many parsers behind a tool would."""
NO_BOUND = 2**62
KINDS: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}


class Arguments:
    """The arguments object of one tool.

    Raises:
        ValueError: the schema is none of an object.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        kind = validator_for(schema, default=Draft202012Validator)
        try:
            kind.check_schema(schema)
        except SchemaError as error:
            raise ValueError(f"not a JSON schema: {error.message[:LENGTH]}") from None
        if schema.get("type") != "object":
            raise ValueError("not the schema of an object: its type is not 'object'")
        self.schema = {"properties": {}, "additionalProperties": False, **schema}
        self._validator = kind(self.schema, registry=Registry())  # a registry of our own fetches no schema by URL
        properties = self.schema["properties"].items()
        self._defaults = {
            name: each["default"] for name, each in properties if isinstance(each, dict) and "default" in each
        }

    @property
    def sure(self) -> frozenset[str]:
        """The named arguments that are there in every call."""
        return frozenset(self.schema["properties"]) & {*self.schema.get("required", []), *self._defaults}

    def read(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments, with the schema's defaults for what is left out.

        Raises:
            WrongArguments: they do not fit the schema.
        """
        given = {**self._defaults, **fitted(arguments, self.schema)}
        try:
            wrong = sorted(map(_told, self._validator.iter_errors(given)))
        except Exception as error:
            logger.warning("arguments_unreadable", exc_info=error)
            raise WrongArguments(f"they cannot be read ({type(error).__name__})") from None
        if wrong:
            raise WrongArguments("; ".join(wrong[:TOLD_AT_MOST]))
        return given


def _told(error: ValidationError) -> str:
    return f"{_place(error.path)}: {error.message[:LENGTH]}"


def fitted(arguments: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments as valid JSON, with what a model has put into a string too many taken out of it.

    A string is read as JSON where the schema takes no string there and takes what it holds; 3.0 is an integer.

    Raises:
        WrongArguments: a number is none that JSON knows, or an argument has a name that the schema does not have.
    """
    _check_numbers(arguments)
    _check_names(arguments, schema)
    valid = sanitize_json(arguments, max_depth=MAX_DEPTH + 1, max_items=NO_BOUND, max_characters=NO_BOUND)
    found: dict[str, Any] = _fit(valid, schema, schema, ())
    return found


def _check_names(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    if schema.get("additionalProperties") is not False or schema.get("patternProperties"):
        return
    known = schema.get("properties", {})
    unknown = sorted(str(name) for name in arguments if name not in known)
    if unknown:
        named = ", ".join(unknown[:TOLD_AT_MOST])[:LENGTH]
        raise WrongArguments(f"{named}: no such argument; the arguments are: {', '.join(known) or 'none'}")


def _check_numbers(value: Any, path: tuple[str, ...] = ()) -> None:
    if isinstance(value, int | float):
        if isinstance(value, float) and math.isnan(value):
            raise WrongArguments(f"{_place(path)}: NaN is no number that can be used")
        too_large = value.bit_length() > MAX_INTEGER_BITS if isinstance(value, int) else math.isinf(value)
        if too_large:
            raise WrongArguments(f"{_place(path)}: the number is too large to be used")
    elif isinstance(value, dict | list):
        if len(path) > MAX_DEPTH:
            raise WrongArguments(f"{_place(path[:1])}: nested deeper than {MAX_DEPTH} levels")
        for place, each in value.items() if isinstance(value, dict) else enumerate(value):
            _check_numbers(each, (*path, str(place)))


def _place(path: Iterable[str | int]) -> str:
    return ".".join(map(str, path))[:LENGTH] or "arguments"


def _fit(value: Any, schema: Any, root: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value, fitted to the schema at its place."""
    schema = _resolved(schema, root)
    if not isinstance(schema, dict):
        return value
    value = _typed(value, _kinds(schema, root, len(path)), path)
    if isinstance(value, dict):
        inner = _branch(schema, "object", root, len(path))
        named, rest = inner.get("properties"), inner.get("additionalProperties")
        named = named if isinstance(named, dict) else {}
        return {name: _fit(each, named.get(name, rest), root, (*path, name)) for name, each in value.items()}
    if isinstance(value, list):
        inner = _branch(schema, "array", root, len(path))
        first = inner.get("prefixItems")
        first = first if isinstance(first, list) else []
        items = [*first[: len(value)], *[inner.get("items")] * (len(value) - len(first))]
        return [_fit(each, of, root, (*path, "0")) for each, of in zip(value, items, strict=True)]
    return value


def _typed(value: Any, kinds: frozenset[str], path: tuple[str, ...]) -> Any:
    """The value as one of the kinds, where it says without doubt which."""
    if not kinds:
        return value
    if isinstance(value, str) and "string" not in kinds:
        value = _unwrapped(value, kinds, path)
    if isinstance(value, float) and "integer" in kinds and "number" not in kinds and value.is_integer():
        return int(value)
    numeric = not kinds.isdisjoint({"integer", "number"})
    if isinstance(value, bool) and numeric and "boolean" not in kinds:
        raise WrongArguments(f"{_place(path)}: {str(value).lower()} is no number")
    if kinds == {"boolean"} and not isinstance(value, bool):
        raise WrongArguments(f"{_place(path)}: neither true nor false")
    return value


def _resolved(schema: Any, root: Mapping[str, Any]) -> Any:
    """The schema that a local `$ref` leads to."""
    for _ in range(MAX_DEPTH):
        if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
            return schema
        found: Any = root
        for step in schema["$ref"].removeprefix("#").strip("/").split("/"):
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) and step else found
        schema = found
    return None


def _kinds(schema: dict[str, Any], root: Mapping[str, Any], depth: int) -> frozenset[str]:
    """The JSON types that a schema takes; none where it does not say."""
    said = schema.get("type")
    if isinstance(said, str):
        return frozenset({said})
    if isinstance(said, list):
        return frozenset(each for each in said if isinstance(each, str))
    if "const" in schema or isinstance(schema.get("enum"), list):
        values = [schema["const"]] if "const" in schema else schema["enum"]
        return frozenset(KINDS.get(type(each), "string") for each in values)
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list) and depth <= MAX_DEPTH:
            branches = [_resolved(each, root) for each in schema[word]]
            of_each = [_kinds(each, root, depth + 1) if isinstance(each, dict) else frozenset() for each in branches]
            return frozenset().union(*of_each) if all(of_each) else frozenset()
    return frozenset()


def _branch(schema: dict[str, Any], kind: str, root: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """The one alternative that takes values of a kind; the schema itself where it has none."""
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            branches = [_resolved(each, root) for each in schema[word]]
            able = [each for each in branches if isinstance(each, dict) and kind in _kinds(each, root, depth + 1)]
            return able[0] if len(able) == 1 else {}
    return schema


def _unwrapped(text: str, kinds: frozenset[str], path: tuple[str, ...]) -> Any:
    """The JSON value in a text, if it is of one of the kinds; else the text."""
    written = text.strip()
    try:
        value = json.loads(written.lower() if written in {"True", "False"} else written)
    except (ValueError, RecursionError):
        return text
    kind = KINDS[type(value)]
    if kind not in kinds and not (kind in {"integer", "number"} and not kinds.isdisjoint({"integer", "number"})):
        return text
    _check_numbers(value, path)
    return sanitize_json(value, max_depth=MAX_DEPTH + 1, max_items=NO_BOUND, max_characters=NO_BOUND)
