"""Validates a model's arguments against a JSON schema, and converts values of a wrong type."""

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

MAX_MESSAGES, MAX_MESSAGE_CHARACTERS = 5, 200
"""Of what a model reads about arguments that are wrong."""
MAX_DEPTH = 64
"""Levels of nesting in arguments; deeper ones are refused, as many parsers behind a tool would refuse them."""
UNBOUNDED = 2**62
_JSON_TYPES: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}


class ArgumentsReader:
    """Reads the arguments of one tool.

    Raises:
        ValueError: the schema does not describe an object.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        kind = validator_for(schema, default=Draft202012Validator)
        try:
            kind.check_schema(schema)
        except SchemaError as error:
            raise ValueError(f"not a JSON schema: {error.message[:MAX_MESSAGE_CHARACTERS]}") from None
        if schema.get("type") != "object":
            raise ValueError("not the schema of an object: its type is not 'object'")
        self.schema = {"properties": {}, "additionalProperties": False, **schema}
        self._validator = kind(self.schema, registry=Registry())  # an empty registry: no schema is fetched by URL
        properties = self.schema["properties"].items()
        self._defaults = {
            name: each["default"] for name, each in properties if isinstance(each, dict) and "default" in each
        }

    @property
    def always_present(self) -> frozenset[str]:
        """The arguments that every call has: the required ones and those with a default."""
        return frozenset(self.schema["properties"]) & {*self.schema.get("required", []), *self._defaults}

    def read(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments, with the schema's defaults for those that are missing.

        Raises:
            WrongArguments: they are not valid under the schema.
        """
        complete = {**self._defaults, **coerce_arguments(arguments, self.schema)}
        try:
            messages = sorted(map(_message, self._validator.iter_errors(complete)))
        except Exception as error:
            logger.warning("arguments_unreadable", exc_info=error)
            raise WrongArguments(f"they cannot be read ({type(error).__name__})") from None
        if messages:
            raise WrongArguments("; ".join(messages[:MAX_MESSAGES]))
        return complete


def _message(error: ValidationError) -> str:
    return f"{_path_text(error.path)}: {error.message[:MAX_MESSAGE_CHARACTERS]}"


def coerce_arguments(arguments: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as valid JSON, with values of a wrong type converted.

    A string is parsed as JSON if the schema takes no string there but takes the parsed value; 3.0 becomes an integer.

    Raises:
        WrongArguments: a number is not valid in JSON, or the schema has no argument of that name.
    """
    _check_values(arguments)
    _check_names(arguments, schema)
    valid = sanitize_json(arguments, max_depth=MAX_DEPTH + 1, max_items=UNBOUNDED, max_characters=UNBOUNDED)
    coerced: dict[str, Any] = _coerce(valid, schema, schema, ())
    return coerced


def _check_names(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    if schema.get("additionalProperties") is not False or schema.get("patternProperties"):
        return
    known = schema.get("properties", {})
    unknown = sorted(str(name) for name in arguments if name not in known)
    if unknown:
        names = ", ".join(unknown[:MAX_MESSAGES])[:MAX_MESSAGE_CHARACTERS]
        raise WrongArguments(f"{names}: no such argument; the arguments are: {', '.join(known) or 'none'}")


def _check_values(value: Any, path: tuple[str, ...] = ()) -> None:
    if isinstance(value, int | float):
        if isinstance(value, float) and math.isnan(value):
            raise WrongArguments(f"{_path_text(path)}: NaN is no number that can be used")
        too_large = value.bit_length() > MAX_INTEGER_BITS if isinstance(value, int) else math.isinf(value)
        if too_large:
            raise WrongArguments(f"{_path_text(path)}: the number is too large to be used")
    elif isinstance(value, dict | list):
        if len(path) > MAX_DEPTH:
            raise WrongArguments(f"{_path_text(path[:1])}: nested deeper than {MAX_DEPTH} levels")
        for place, each in value.items() if isinstance(value, dict) else enumerate(value):
            _check_values(each, (*path, str(place)))


def _path_text(path: Iterable[str | int]) -> str:
    return ".".join(map(str, path))[:MAX_MESSAGE_CHARACTERS] or "arguments"


def _coerce(value: Any, schema: Any, root: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value and all that it holds, converted to what the schema takes."""
    schema = _resolve(schema, root)
    if not isinstance(schema, dict):
        return value
    value = _convert(value, _accepted_types(schema, root, len(path)), path)
    if isinstance(value, dict):
        inner = _branch(schema, "object", root, len(path))
        properties, rest = inner.get("properties"), inner.get("additionalProperties")
        properties = properties if isinstance(properties, dict) else {}
        return {name: _coerce(each, properties.get(name, rest), root, (*path, name)) for name, each in value.items()}
    if isinstance(value, list):
        inner = _branch(schema, "array", root, len(path))
        first = inner.get("prefixItems")
        first = first if isinstance(first, list) else []
        schemas = [*first[: len(value)], *[inner.get("items")] * (len(value) - len(first))]
        return [_coerce(each, of, root, (*path, "0")) for each, of in zip(value, schemas, strict=True)]
    return value


def _convert(value: Any, types: frozenset[str], path: tuple[str, ...]) -> Any:
    """The value as one of the accepted types, if its meaning is beyond doubt."""
    if not types:
        return value
    if isinstance(value, str) and "string" not in types:
        value = _parse_string(value, types, path)
    if isinstance(value, float) and "integer" in types and "number" not in types and value.is_integer():
        return int(value)
    numeric = not types.isdisjoint({"integer", "number"})
    if isinstance(value, bool) and numeric and "boolean" not in types:
        raise WrongArguments(f"{_path_text(path)}: {str(value).lower()} is no number")
    if types == {"boolean"} and not isinstance(value, bool):
        raise WrongArguments(f"{_path_text(path)}: neither true nor false")
    return value


def _resolve(schema: Any, root: Mapping[str, Any]) -> Any:
    """The schema that a local `$ref` points to."""
    for _ in range(MAX_DEPTH):
        if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
            return schema
        found: Any = root
        for step in schema["$ref"].removeprefix("#").strip("/").split("/"):
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) and step else found
        schema = found
    return None


def _accepted_types(schema: dict[str, Any], root: Mapping[str, Any], depth: int) -> frozenset[str]:
    """The JSON types that a schema accepts; empty if it does not say."""
    declared = schema.get("type")
    if isinstance(declared, str):
        return frozenset({declared})
    if isinstance(declared, list):
        return frozenset(each for each in declared if isinstance(each, str))
    if "const" in schema or isinstance(schema.get("enum"), list):
        values = [schema["const"]] if "const" in schema else schema["enum"]
        return frozenset(_JSON_TYPES.get(type(each), "string") for each in values)
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list) and depth <= MAX_DEPTH:
            branches = [_resolve(each, root) for each in schema[word]]
            of_each = [
                _accepted_types(each, root, depth + 1) if isinstance(each, dict) else frozenset() for each in branches
            ]
            return frozenset().union(*of_each) if all(of_each) else frozenset()
    return frozenset()


def _branch(schema: dict[str, Any], json_type: str, root: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """The only alternative that accepts a type; without alternatives, the schema itself."""
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            branches = [_resolve(each, root) for each in schema[word]]
            accepting = [
                each
                for each in branches
                if isinstance(each, dict) and json_type in _accepted_types(each, root, depth + 1)
            ]
            return accepting[0] if len(accepting) == 1 else {}
    return schema


def _parse_string(text: str, types: frozenset[str], path: tuple[str, ...]) -> Any:
    """The JSON value in a text, if it has an accepted type; otherwise the text."""
    written = text.strip()
    try:
        value = json.loads(written.lower() if written in {"True", "False"} else written)
    except (ValueError, RecursionError):
        return text
    json_type = _JSON_TYPES[type(value)]
    if json_type not in types and not (
        json_type in {"integer", "number"} and not types.isdisjoint({"integer", "number"})
    ):
        return text
    _check_values(value, path)
    return sanitize_json(value, max_depth=MAX_DEPTH + 1, max_items=UNBOUNDED, max_characters=UNBOUNDED)
