"""Adapts the JSON schema of a tool to the dialect of a provider.

Many providers take a subset of JSON schema, and refuse the whole request for one unknown keyword (`$ref`, `const`,
`exclusiveMinimum`, a list of types). The simple dialect has only the keywords of the OpenAPI subset. It requires less
than the original, never more. The rest goes into the description; the tool checks arguments against the original.
"""

from __future__ import annotations

import json
import math
from typing import Any, Literal, TypeGuard

from serve_app.values.sanitize import sanitize_json, truncate

__all__ = ["Dialect", "adapt_schema"]

Dialect = Literal["full", "simple"]
Schema = dict[str, Any]

MAX_DEPTH = 10
"""Levels of the simple form; providers refuse more than five to ten, and no model fills in deeper ones."""
MAX_NODES = 2_000
"""Parts of the simple form: expanded references may multiply."""
MAX_REFERENCES = 64
"""References and combinations within one another."""
MAX_DESCRIPTION = 1_000
"""Characters of one description; OpenAI takes 1,024."""
TYPES = ("string", "object", "array", "number", "integer", "boolean")
"""In order of preference, where a schema has several: a string can stand for the others."""
NOTES = {
    "format": "Format",
    "pattern": "Pattern",
    "default": "Default",
    "examples": "Examples",
    "multipleOf": "A multiple of",
    "minLength": "Least length",
    "maxLength": "Greatest length",
}
"""Keywords that many providers refuse; the model reads them in the description."""
COMBINED = ("anyOf", "oneOf", "allOf")
NAMED = {"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"}
"""Keywords whose value has names as keys, not keywords."""
NEVER_SENT = {"writeOnly", "$schema", "$id", "$comment"}
"""Keywords that no model needs; several providers refuse them."""


def adapt_schema(parameters: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    """Return the schema of an arguments object in a provider's dialect.

    `full` is the schema as it is, without marks that are not for models, and with its root plainly an object. `simple`
    has only type, description, enum of strings, properties, required, items, nullable, and bounds of numbers and lists.
    """
    valid = sanitize_json(parameters)
    root: Schema = valid if isinstance(valid, dict) else {}
    if dialect == "simple" or any(word in root for word in (*COMBINED, "$ref")):
        plain = _Simplifier(root).simplify_root()
        if dialect == "simple":
            return plain
        root = plain
    properties = root.get("properties")
    named = {**root, "type": "object", "properties": properties if isinstance(properties, dict) else {}}
    sent: Schema = _remove_never_sent(named)
    return sent


def _remove_never_sent(value: Any, *, names: bool = False) -> Any:
    """Remove `NEVER_SENT`; with `names` the keys are names, not keywords."""
    if isinstance(value, list):
        return [_remove_never_sent(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        word: each
        if word in {"default", "const", "enum", "examples"} and not names
        else _remove_never_sent(each, names=not names and word in NAMED)
        for word, each in value.items()
        if names or word not in NEVER_SENT
    }


class _Simplifier:
    """Simplifies one schema, within a budget of parts."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._nodes = MAX_NODES

    def simplify_root(self) -> Schema:
        """Return the root as an object, whatever its own type."""
        simple = self._simplify(self._root, (), 0) or {}
        found = {"type": "object", "properties": simple.get("properties", {})}
        return found | {word: simple[word] for word in ("description", "required") if word in simple}

    def _simplify(self, schema: Any, references: tuple[str, ...], depth: int) -> Schema | None:
        """Return the simple form: no type if any value is valid, None if none is."""
        self._nodes -= 1
        if schema is False:
            return None
        if not isinstance(schema, dict):
            return {}
        found = self._simplify_own(schema, references, depth)
        parts: list[Schema | None] = []
        reference = schema.get("$ref")
        if isinstance(reference, str) and (reference in references or len(references) >= MAX_REFERENCES):
            parts.append(_of_type(self._target(reference)))
        elif isinstance(reference, str):
            parts.append(self._simplify(self._target(reference), (*references, reference), depth))
        for word in COMBINED:
            if isinstance(schema.get(word), list) and self._nodes > 0 and len(references) < MAX_REFERENCES:
                each = [self._simplify(one, (*references, word), depth + 1) for one in schema[word]]
                parts.extend(each if word == "allOf" else [_any_of(each)])
        for part in parts:
            if part is None:
                return None
            found = _all_of(found, part)
        return found

    def _target(self, reference: str) -> Any:
        found: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list):
                found = found[int(name)] if name.isdecimal() and int(name) < len(found) else None
            else:
                found = found.get(name) if isinstance(found, dict) else None
        return found

    def _simplify_own(self, schema: Schema, references: tuple[str, ...], depth: int) -> Schema:
        """Return the simple form of the schema's own keywords, without combinations."""
        types, nullable = _types(schema)
        found: Schema = {}
        notes = [f"{label}: {_json(schema[word])}." for word, label in NOTES.items() if schema.get(word) is not None]
        if types:
            found["type"] = next((each for each in TYPES if each in types), "string")
            if len(types) > 1 and set(types) != {"number", "integer"}:
                notes.append(f"Also taken: {', '.join(each for each in types if each != found['type'])}.")
        if nullable:
            found["nullable"] = True
        notes += _enumerate(schema, found) + _bound(schema, found)
        notes = [*notes, *self._fill(schema, found, references, depth)]
        own = schema.get("description")
        described = " ".join([*([own.strip()] if isinstance(own, str) and own.strip() else []), *notes])
        if described:
            found["description"] = truncate(described, MAX_DESCRIPTION)
        return found

    def _fill(self, schema: Schema, found: Schema, references: tuple[str, ...], depth: int) -> list[str]:
        """Add properties or items down to `MAX_DEPTH`; return notes for the description."""
        deeper = depth < MAX_DEPTH - 1 and self._nodes > 0
        if found.get("type") == "object":
            properties = schema.get("properties")
            found["properties"] = {}
            for name, each in properties.items() if isinstance(properties, dict) and deeper else ():
                inner = self._simplify(each, references, depth + 1)
                if inner is not None:
                    found["properties"][name] = _typed(inner)
            required = schema.get("required")
            listed = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
            named = [name for name in listed if name in found["properties"]]
            if named:
                found["required"] = list(dict.fromkeys(named))
        elif found.get("type") == "array":
            items = _items(schema) if deeper else []
            found["items"] = _typed(_any_of([self._simplify(each, references, depth + 1) for each in items]) or {})
        return [] if deeper or found.get("type") not in {"object", "array"} else ["Nested deeper than is shown here."]


def _items(schema: Schema) -> list[Any]:
    """Return the schemas of the items of a list."""
    items, first = schema.get("items"), schema.get("prefixItems")
    listed = [*(first if isinstance(first, list) else []), *(items if isinstance(items, list) else [])]
    return [*listed, items] if isinstance(items, dict) else listed or [True]


def _types(schema: Schema) -> tuple[list[str], bool]:
    """Return the types that a schema names or implies, and whether null is one."""
    declared = schema.get("type")
    named = (
        [declared]
        if isinstance(declared, str)
        else [each for each in declared if isinstance(each, str)]
        if _is_list(declared)
        else []
    )
    if not named and (values := _values(schema)) is not None:
        named = list(dict.fromkeys(_type_of(each) for each in values))
    if not named and isinstance(schema.get("properties"), dict):
        named = ["object"]
    if not named and any(word in schema for word in ("items", "prefixItems")):
        named = ["array"]
    nullable = "null" in named or schema.get("nullable") is True
    return [each for each in named if each in TYPES], nullable


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _type_of(value: Any) -> str:
    kinds: list[tuple[Any, str]] = [
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (str, "string"),
        (list, "array"),
        (dict, "object"),
    ]
    return next((name for kind, name in kinds if isinstance(value, kind)), "null")


def _values(schema: Schema) -> list[Any] | None:
    """Return the values that a schema lists; None for no list."""
    if "const" in schema:
        return [schema["const"]]
    listed = schema.get("enum")
    return listed if isinstance(listed, list) and listed else None


def _enumerate(schema: Schema, found: Schema) -> list[str]:
    """Add an enum of strings; return any other enum as a note."""
    values = _values(schema)
    if values is None:
        return []
    if None in values:
        found["nullable"] = True
    others = [each for each in values if each is not None]
    if others and all(isinstance(each, str) and each for each in others) and found.get("type") == "string":
        found["enum"] = list(dict.fromkeys(others))
        return []
    return [f"One of: {', '.join(map(_json, values))}."]


def _bound(schema: Schema, found: Schema) -> list[str]:
    """Add bounds of a number or a list; return exclusive ones as notes."""
    notes: list[str] = []
    if found.get("type") == "array":
        counts = {word: schema[word] for word in ("minItems", "maxItems") if _count(schema.get(word))}
        found.update(counts)
    if found.get("type") not in {"integer", "number"}:
        return notes
    for word, exclusive, label in (
        ("minimum", "exclusiveMinimum", "Greater than"),
        ("maximum", "exclusiveMaximum", "Less than"),
    ):
        bounds = [schema[each] for each in (word, exclusive) if _finite(schema.get(each))]
        if bounds:
            found[word] = max(bounds) if word == "minimum" else min(bounds)
        if _finite(schema.get(exclusive)):
            notes.append(f"{label} {_json(schema[exclusive])}.")
    return notes


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _of_type(schema: Any) -> Schema:
    """Return only the type of a schema that is described elsewhere."""
    types, _ = _types(schema) if isinstance(schema, dict) else ([], False)
    return {"type": types[0], "description": "The same once more."} if len(types) == 1 else {}


def _typed(schema: Schema) -> Schema:
    """Return the schema with a type, and with the keywords that its type requires."""
    if "type" not in schema:
        note = " ".join([*([schema["description"]] if "description" in schema else []), "Any JSON value."])
        schema = {**schema, "type": "string", "description": truncate(note, MAX_DESCRIPTION)}
        schema.pop("enum", None)
    if schema["type"] == "array" and "items" not in schema:
        return {**schema, "items": _typed({})}
    if schema["type"] == "object" and "properties" not in schema:
        return {**schema, "properties": {}}
    return schema


def _described(*parts: Schema) -> Schema:
    """Join the descriptions of several schemas."""
    texts = list(dict.fromkeys(part["description"] for part in parts if part.get("description")))
    return {"description": truncate(" ".join(texts), MAX_DESCRIPTION)} if texts else {}


def _any_of(parts: list[Schema | None]) -> Schema | None:
    """Merge schemas into one that accepts what any of them accepts."""
    able = [part for part in parts if part is not None]
    if not able:
        return None
    values = [part for part in able if part.keys() - {"description"} != {"nullable"}]  # those take null alone
    if not values:
        return {"nullable": True}
    found: Schema = _described(*values)
    if any(part.get("nullable") for part in able):
        found["nullable"] = True
    types = {part.get("type") for part in values}
    if None in types:
        return found
    found["type"] = "number" if types == {"number", "integer"} else next(each for each in TYPES if each in types)
    if len(types) > 1 and found["type"] != "number":
        others = ", ".join(each for each in TYPES if each in types and each != found["type"])
        found |= _described(found, {"description": f"Also taken: {others}."})
    same = [part for part in values if part["type"] == found["type"] or types == {"number", "integer"}]
    return found | _widest(same)


def _widest(parts: list[Schema]) -> Schema:
    """Merge schemas of one type: the widest bounds, the common requirements."""
    found: Schema = {}
    for word, widest in (("minimum", min), ("maximum", max), ("minItems", min), ("maxItems", max)):
        if all(word in part for part in parts):
            found[word] = widest(part[word] for part in parts)
    if all("enum" in part for part in parts):
        found["enum"] = list(dict.fromkeys(value for part in parts for value in part["enum"]))
    if all("items" in part for part in parts):
        found["items"] = _typed(_any_of([part["items"] for part in parts]) or {})
    if any("properties" in part for part in parts):
        names = dict.fromkeys(name for part in parts for name in part.get("properties", {}))
        found["properties"] = {
            name: _typed(
                _any_of([part["properties"][name] for part in parts if name in part.get("properties", {})]) or {}
            )
            for name in names
        }
        required = [name for name in names if all(name in part.get("required", []) for part in parts)]
        if required:
            found["required"] = required
    return found


def _all_of(one: Schema, other: Schema) -> Schema:
    """Merge two schemas into one that accepts what both accept, or more."""
    if not one or not other:
        return one or other
    if "type" in one and "type" in other and one["type"] != other["type"]:
        if {one["type"], other["type"]} != {"number", "integer"}:
            return one | _described(one, other)
        one, other = {**one, "type": "integer"}, {**other, "type": "integer"}
    found: Schema = {**other, **one, **_described(one, other)}
    for word, narrowest in (("minimum", max), ("maximum", min), ("minItems", max), ("maxItems", min)):
        if word in one and word in other:
            found[word] = narrowest(one[word], other[word])
    if "enum" in one and "enum" in other:
        found["enum"] = [value for value in one["enum"] if value in other["enum"]] or one["enum"]
    if "properties" in one and "properties" in other:
        both = {
            name: _all_of(one["properties"][name], other["properties"][name])
            for name in one["properties"]
            if name in other["properties"]
        }
        found["properties"] = {**other["properties"], **one["properties"], **both}
    if "items" in one and "items" in other:
        found["items"] = _all_of(one["items"], other["items"])
    required = list(dict.fromkeys([*one.get("required", []), *other.get("required", [])]))
    if required:
        found["required"] = required
    return found
