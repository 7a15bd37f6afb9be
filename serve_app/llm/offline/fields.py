"""What does a JSON schema say of one argument? What makes no sense in it is passed over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

from serve_app.llm.offline.words import plain

Kind = Literal["string", "integer", "number", "boolean", "object"]
KINDS = ("string", "integer", "number", "boolean", "object")


@dataclass(frozen=True, slots=True)
class Field:
    """One property of a tool's arguments, its references followed."""

    name: str
    required: bool
    kind: Kind
    many: bool
    """Whether it takes a list of such values."""
    description: str
    examples: tuple[str, ...]
    choices: tuple[Any, ...]
    pattern: str | None
    format: str | None
    minimum: float
    maximum: float


def fields_of(parameters: Any) -> list[Field]:
    """The properties of an arguments object, in order."""
    schema = _mapping(parameters)
    definitions = _mapping(schema.get("$defs"))
    required = [name for name in _sequence(schema.get("required")) if isinstance(name, str)]
    return [
        _field(name, _resolved(each, definitions), definitions, required)
        for name, each in _mapping(schema.get("properties")).items()
        if isinstance(each, dict)
    ]


def _field(name: str, schema: dict[str, Any], definitions: dict[str, Any], required: list[str]) -> Field:
    many = schema.get("type") == "array"
    if many:
        item = _resolved(_mapping(schema.get("items")), definitions)
        schema = {"description": schema.get("description"), "examples": schema.get("examples"), **item}
    kind, pattern, form = (schema.get(key) for key in ("type", "pattern", "format"))
    choices = [schema["const"]] if "const" in schema else _sequence(schema.get("enum"))
    return Field(
        name=name,
        required=name in required,
        kind=cast("Kind", kind) if kind in KINDS else "string",
        many=many,
        description=plain(str(schema.get("description") or "")),
        examples=tuple(str(each) for each in _sequence(schema.get("examples")) if isinstance(each, str | int | float)),
        choices=tuple(each for each in choices if isinstance(each, str | int | float)),
        pattern=pattern if isinstance(pattern, str) else None,
        format=form if isinstance(form, str) else None,
        minimum=_bound(schema, ("minimum", "exclusiveMinimum"), float("-inf")),
        maximum=_bound(schema, ("maximum", "exclusiveMaximum"), float("inf")),
    )


def _resolved(schema: dict[str, Any], definitions: dict[str, Any], depth: int = 4) -> dict[str, Any]:
    """The schema with its reference followed and the first choice but null taken; references may be circular."""
    if depth == 0:
        return schema
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target = _mapping(definitions.get(reference.rpartition("/")[2]))
        return {**_resolved(target, definitions, depth - 1), **schema}
    for key in ("anyOf", "oneOf", "allOf"):
        for choice in map(_mapping, _sequence(schema.get(key))):
            if choice and choice.get("type") != "null":
                own = {name: value for name, value in schema.items() if name != key}
                return {**_resolved(choice, definitions, depth - 1), **own}
    kinds = [kind for kind in _sequence(schema.get("type")) if kind != "null"]
    return {**schema, "type": kinds[0]} if kinds else schema


def _bound(schema: dict[str, Any], keys: tuple[str, ...], default: float) -> float:
    given = [schema[key] for key in keys if isinstance(schema.get(key), int | float)]
    return float(given[0]) if given else default


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
