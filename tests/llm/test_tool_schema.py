"""A tool's schema fits the provider's dialect, and requires no more than before."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from serve_app.llm.tool_schema import MAX_DEPTH, adapt_schema
from serve_app.values import make_tool_name

KEYWORDS = {
    "type",
    "description",
    "enum",
    "properties",
    "required",
    "items",
    "nullable",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
}
TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}
WORDS = st.sampled_from(
    [
        *("$ref", "$defs", "$schema", "$id", "type", "properties", "items", "prefixItems", "required", "enum", "const"),
        *("anyOf", "oneOf", "allOf", "not", "default", "format", "pattern", "minimum", "exclusiveMinimum", "maximum"),
        *("minItems", "nullable", "description", "additionalProperties", "patternProperties", "writeOnly", "if", "a"),
    ]
)
JUNK = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters(exclude_categories=()), max_size=4),
        st.sampled_from(["string", "object", "array", "null", "#", "#/$defs/a", "#/properties/a", "#/anyOf/0", "a"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=20,
)


def _check_subset(schema: Any, depth: int = 1) -> None:
    assert schema.keys() <= KEYWORDS
    assert schema["type"] in TYPES
    assert depth <= MAX_DEPTH + 1
    if "enum" in schema:
        assert schema["type"] == "string"
        assert all(isinstance(each, str) and each for each in schema["enum"])
    if schema["type"] == "object":
        assert set(schema.get("required", [])) <= schema["properties"].keys()
        for each in schema["properties"].values():
            _check_subset(each, depth + 1)
    if schema["type"] == "array":
        _check_subset(schema["items"], depth + 1)


def _fits(schema: dict[str, Any], value: Any) -> bool:  # noqa: PLR0911 - a case a line
    """Whether a value is taken by a simple schema."""
    if value is None:
        return bool(schema.get("nullable"))
    if not isinstance(value, TYPES[schema["type"]]) or (isinstance(value, bool) and schema["type"] != "boolean"):
        return False
    if value not in schema.get("enum", [value]):
        return False
    if isinstance(value, int | float) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return False
    if isinstance(value, list):
        return all(_fits(schema["items"], each) for each in value)
    if isinstance(value, dict):
        missing = set(schema.get("required", [])) - value.keys()
        inner = schema["properties"]
        return not missing and all(_fits(inner[name], each) for name, each in value.items() if name in inner)
    return True


@st.composite
def leaves(draw: st.DrawFn) -> tuple[Any, Any]:
    number = draw(st.integers(-100, 100))
    text = draw(st.text("abc", min_size=1, max_size=3))
    return draw(
        st.sampled_from(
            [
                ({"type": "string", "minLength": 1, "format": "x", "writeOnly": True}, text),
                ({"enum": [text, "other"]}, text),
                ({"type": "string", "enum": [text, ""]}, ""),
                ({"const": text}, text),
                ({"const": number}, number),
                ({"type": "integer", "exclusiveMinimum": number - 1, "maximum": number}, number),
                ({"type": "number", "minimum": number, "exclusiveMaximum": number + 0.5}, number + 0.25),
                ({"type": ["integer", "number"]}, number + 0.5),
                ({"type": "boolean", "default": None}, True),
                ({"type": ["integer", "null"], "multipleOf": 1}, draw(st.sampled_from([None, number]))),
                ({"type": "string", "const": text}, text),
            ]
        )
    )


@st.composite
def composites(  # noqa: PLR0911 - a case a line
    draw: st.DrawFn, inner: st.SearchStrategy[tuple[Any, Any]]
) -> tuple[Any, Any]:
    schema, value = draw(inner)
    other, _ = draw(inner)
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return {"anyOf": [schema, {"type": "null"}], "default": None}, draw(st.sampled_from([None, value]))
    if kind == 1:
        return {"allOf": [schema], "description": "one"}, value
    if kind == 2:
        return {"type": "array", "items": schema, "minItems": 1}, [value]
    if kind == 3:
        return {"type": "array", "prefixItems": [schema]}, [value]
    if kind == 4:
        properties = {"a": schema, "b": other, "never": False}
        return {"type": "object", "properties": properties, "required": ["a"], "additionalProperties": True}, {
            "a": value
        }
    if kind == 5:
        one = {"type": "object", "properties": {"a": schema, "kind": {"const": "one"}}, "required": ["a", "kind"]}
        two = {"type": "object", "properties": {"a": schema, "c": other}, "required": ["c"]}
        return {"anyOf": [one, two]}, {"a": value, "kind": "one"}
    if kind == 6:
        low, high = {"type": "integer", "maximum": 5}, {"type": "integer", "minimum": 6}
        return {"oneOf": [low, high]}, draw(st.integers(0, 9))
    if kind == 7:
        left = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
        return {"allOf": [left, {"properties": {"x": {"enum": ["p"]}}}]}, {"a": value, "x": "p"}
    if kind == 8:
        return {"type": "object", "additionalProperties": schema}, {"k": value}
    return {"anyOf": [{"enum": ["a"]}, {"const": "b"}]}, draw(st.sampled_from(["a", "b"]))


PAIRS = st.recursive(leaves(), composites, max_leaves=8)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=120, deadline=None)
@given(PAIRS, st.booleans())
def test_what_the_original_takes_the_simple_form_takes_too(pair: tuple[Any, Any], referenced: bool) -> None:  # noqa: FBT001
    schema, value = pair
    root: dict[str, Any] = {"type": "object", "properties": {"it": schema}, "required": ["it"]}
    if referenced:
        root = {**root, "properties": {"it": {"$ref": "#/$defs/it"}}, "$defs": {"it": schema}}
    assert Draft202012Validator(root).is_valid({"it": value})
    simple = adapt_schema(root, "simple")
    _check_subset(simple)
    assert _fits(simple, {"it": value}), simple


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=120, deadline=None)
@given(st.one_of(JUNK, st.dictionaries(WORDS, JUNK)))
def test_whatever_a_schema_is_the_simple_form_is_one_that_providers_take(junk: Any) -> None:
    schema = junk if isinstance(junk, dict) else {"properties": {"a": junk}}
    _check_subset(adapt_schema(schema, "simple"))
    full = adapt_schema(schema, "full")
    assert full["type"] == "object"
    assert isinstance(full["properties"], dict)
    json.dumps([full, adapt_schema(schema, "simple")], allow_nan=False, ensure_ascii=False).encode()


def test_what_providers_refuse_is_in_their_dialect_or_in_the_description() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "$defs": {
            "Item": {
                "type": "object",
                "title": "Item",
                "properties": {"sku": {"type": "string"}, "of": {"$ref": "#/$defs/Item"}},
            }
        },
        "properties": {
            "items": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
            "kind": {"const": "order", "title": "Kind"},
            "count": {"type": "integer", "exclusiveMinimum": 0, "description": "How many"},
            "note": {"anyOf": [{"type": "string", "maxLength": 9}, {"type": "null"}], "default": None},
            "key": {"type": "string", "writeOnly": True, "format": "uuid"},
            "level": {"type": "integer", "enum": [1, 2]},
            "any": True,
            "writeOnly": {"type": "boolean"},
        },
        "required": ["items", "gone"],
    }
    simple = adapt_schema(schema, "simple")
    properties = simple["properties"]
    assert simple["required"] == ["items"]
    assert properties["items"]["items"]["properties"]["sku"] == {"type": "string"}
    assert properties["items"]["items"]["properties"]["of"]["type"] == "object"
    assert properties["kind"] == {"type": "string", "enum": ["order"]}
    assert properties["count"] == {"type": "integer", "minimum": 0, "description": "How many Greater than 0."}
    assert properties["note"] == {"type": "string", "nullable": True, "description": "Greatest length: 9."}
    assert properties["key"] == {"type": "string", "description": 'Format: "uuid".'}
    assert properties["level"] == {"type": "integer", "description": "One of: 1, 2."}
    assert properties["any"]["type"] == "string"
    full = adapt_schema(schema, "full")
    assert full["properties"]["key"] == {"type": "string", "format": "uuid"}
    assert full["properties"]["writeOnly"] == {"type": "boolean"}
    assert full["$defs"] == schema["$defs"]
    assert "$schema" not in full
    assert adapt_schema({}, "full") == adapt_schema({}, "simple") == {"type": "object", "properties": {}}
    alternatives = {"anyOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": {"type": "string"}}}]}
    for dialect in ("full", "simple"):
        assert adapt_schema(alternatives, dialect)["properties"].keys() == {"a", "b"}  # type: ignore[arg-type]


def test_references_that_multiply_or_never_end_are_cut() -> None:
    chain = {f"d{number}": {"$ref": f"#/$defs/d{number + 1}"} for number in range(5000)}
    _check_subset(adapt_schema({"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": chain}, "simple"))
    wide = {
        f"d{number}": {
            "type": "object",
            "properties": {name: {"$ref": f"#/$defs/d{number + 1}"} for name in "abcdefgh"},
        }
        for number in range(20)
    }
    simple = adapt_schema({"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": wide}, "simple")
    _check_subset(simple)
    assert len(json.dumps(simple)) < 2_000_000


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=200))
def test_any_name_becomes_a_legal_one_and_a_legal_one_stays(name: str) -> None:
    legal = make_tool_name(name)
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", legal)
    assert make_tool_name(legal) == legal


def test_names_that_differ_stay_different_where_their_letters_were_lost() -> None:
    cases = {"order_query": "order_query", "functions.order": "functions_order", "order query": "order_query"}
    assert {name: make_tool_name(name) for name in cases} == cases
    assert len({make_tool_name(name) for name in ("查询订单", "查询", "a" * 70, "a" * 71)}) == 4
