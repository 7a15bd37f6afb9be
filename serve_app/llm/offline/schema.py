"""Reads the JSON schemas of tools: pattern, enum, examples and numbers of their parameters."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from serve_app.terms import content_terms

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

MAX_TOKEN_CHARACTERS = 64
MAX_TOKENS = 400
MAX_PATTERN_CHARACTERS = 200
MAX_VARIABLE_REPEATS = 3
"""Of one pattern: the cost of a failed match grows with the token's length to this power."""

_TOKEN = re.compile(r"[A-Za-z0-9]+(?:(?:[-_/.:#@+]|://)[A-Za-z0-9]+)*")
_PART = re.compile(r"[A-Za-z0-9]+(?:[-_][A-Za-z0-9]+)*")
_NUMBER = re.compile(r"(?<![A-Za-z0-9_.-])-?\d{1,15}(?:\.\d{1,6})?(?![A-Za-z0-9_-])")
_ORDINARY = (
    *("order", "the", "hello", "where is it", "订单", "ABC", "ABCDE", "7", "12", "123", "2024", "2.6.18", "UTF-8"),
    *("ISO-8859-1", "IPv6", "ext4", "2024-05-01"),
)
"""Tokens of any question: a pattern that takes one of these says little."""
_QUERY_NAME = re.compile(r"(?:^|_)(?:query|question|q|keywords?|search|topic|search_terms?)(?:$|_)", re.IGNORECASE)
_SEARCHING = re.compile(r"search|find|retriev|look ?up|knowledge|搜索|检索|查找", re.IGNORECASE)

_HUGE_REPEAT = re.compile(r"\{\d{4}")
_VARIABLE_REPEAT = re.compile(r"[*+?]|\{\d*,\d*\}")
_ESCAPE_OR_CLASS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]")
_GROUP_KIND = re.compile(r"\(\?[:=!<]?")
_REPEATED_GROUP = re.compile(r"\)[*+{]")


@dataclass(frozen=True, slots=True)
class ToolParameter:
    """One argument of a tool."""

    name: str
    kind: str
    required: bool
    literals: tuple[str | int | float, ...]
    """Values that a message may name: the enum, and examples that are words."""
    shapes: tuple[re.Pattern[str], ...]
    """What a token looks like that is a value: the pattern, else the examples with other digits."""
    examples: tuple[str, ...]
    is_free: bool
    """Whether any text may be the value."""

    @property
    def is_specific(self) -> bool:
        """Whether a token of this shape is hardly anything else."""
        return bool(self.shapes) and not any(shape.fullmatch(word) for shape in self.shapes for word in _ORDINARY)

    def find_values(self, text: str) -> list[Any]:
        """Return the values that a text has, in order, each once."""
        found = [value for token in _tokens(text) if (value := self._fit(token)) is not None] if self.shapes else []
        return list(dict.fromkeys([*found, *(each for each in self.literals if _names(text, str(each)))]))

    def _fit(self, token: str) -> str | None:
        """Return the token in the case that fits a shape; None where none fits."""
        if len(token) > MAX_TOKEN_CHARACTERS:
            return None
        upper = any(example.isupper() for example in self.examples)
        cases = (token.upper(), token) if upper else (token, token.upper(), token.lower())
        for case in cases if any(map(str.isdigit, token)) else (token,):
            if any(shape.fullmatch(case) for shape in self.shapes):
                return case
        return None


@dataclass(frozen=True, slots=True)
class BoundTool:
    """A tool that may be called."""

    name: str
    description: str
    parameters: tuple[ToolParameter, ...]
    terms: frozenset[str]
    """What its name, its description and its parameters are about."""

    @property
    def identifier(self) -> ToolParameter | None:
        """The parameter with a shape, a required one first."""
        shaped = [parameter for parameter in self.parameters if parameter.shapes]
        return max(shaped, key=lambda parameter: parameter.required, default=None)

    @property
    def query(self) -> ToolParameter | None:
        """The parameter that takes a whole question, where this is a search."""
        required = [each for each in self.parameters if each.required] or list(self.parameters)
        if len(required) != 1 or not required[0].is_free:
            return None
        searches = _QUERY_NAME.search(required[0].name) or _SEARCHING.search(self.name)
        return required[0] if searches else None

    def fill(self, text: str, arguments: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], list[ToolParameter]]:
        """Return the arguments that a text has, and the required parameters that it lacks."""
        filled = dict(arguments or {})
        numbers = iter(_NUMBER.findall(text))
        for parameter in self.parameters:
            if parameter.name in filled:
                continue
            values = [each for each in parameter.find_values(text) if each not in filled.values()]
            if values:
                filled[parameter.name] = values[0]
            elif parameter.required and parameter.kind in {"integer", "number"}:
                number = next(numbers, None)
                if number is not None and (parameter.kind == "number" or "." not in number):
                    filled[parameter.name] = float(number) if "." in number else int(number)
        return filled, [each for each in self.parameters if each.required and each.name not in filled]


def read_tools(bound: Iterable[Mapping[str, Any]]) -> list[BoundTool]:
    """Return the bound tools in order, without what is no function."""
    functions = [tool["function"] for tool in bound if isinstance(tool.get("function"), dict)]
    return [_read_tool(json.dumps(function, default=str)) for function in functions]


@lru_cache(maxsize=256)
def compile_safe_pattern(pattern: str) -> re.Pattern[str] | None:
    """Compile a pattern; None where it is invalid or could take exponential time."""
    if len(pattern) > MAX_PATTERN_CHARACTERS or _HUGE_REPEAT.search(pattern):
        return None
    bare = _GROUP_KIND.sub("(", _ESCAPE_OR_CLASS.sub("x", pattern))
    variable = len(_VARIABLE_REPEAT.findall(bare))
    if variable > MAX_VARIABLE_REPEATS or (_REPEATED_GROUP.search(bare) and (variable or "|" in bare)):
        return None  # a repeated group with a choice doubles the cost with each character
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return None


@lru_cache(maxsize=256)
def _read_tool(serialized: str) -> BoundTool:
    function = json.loads(serialized)
    name, description = str(function.get("name") or ""), str(function.get("description") or "")
    schema = _mapping(function.get("parameters"))
    definitions, required = _mapping(schema.get("$defs")), _sequence(schema.get("required"))
    parameters = tuple(
        _read_parameter(key, _resolve(value, definitions), required=key in required)
        for key, value in _mapping(schema.get("properties")).items()
        if isinstance(value, dict)
    )
    words = " ".join([name, *(parameter.name for parameter in parameters)]).replace("_", " ")
    return BoundTool(name, description, parameters, content_terms(f"{words} {description}"))


def _read_parameter(name: str, schema: dict[str, Any], *, required: bool) -> ToolParameter:
    kinds = [schema.get("type"), *_sequence(schema.get("type"))]
    kind = next((each for each in kinds if isinstance(each, str) and each != "null"), "string")
    listed = [schema["const"]] if "const" in schema else _sequence(schema.get("enum"))
    choices = [each for each in listed if isinstance(each, str | int | float)]
    examples = [str(each) for each in _sequence(schema.get("examples")) if isinstance(each, str | int) and str(each)]
    is_text = kind == "string" and not choices
    shapes = _read_shapes(schema.get("pattern"), examples) if is_text else []
    literals = examples if is_text and not shapes else choices
    return ToolParameter(
        name, kind, required, tuple(literals), tuple(shapes), tuple(examples), is_free=is_text and not shapes
    )


def _read_shapes(pattern: Any, examples: Sequence[str]) -> list[re.Pattern[str]]:
    """Return the pattern, else the examples with other digits; none where any word fits."""
    if isinstance(pattern, str):
        compiled = compile_safe_pattern(pattern)
        return [compiled] if compiled and not any(map(compiled.fullmatch, ("order", "where is it", "订单"))) else []
    like = [each for each in examples if _TOKEN.fullmatch(each) and any(map(str.isdigit, each))]
    return [re.compile(re.sub(r"\d+", r"\\d{1,20}", re.escape(each))) for each in like]


def _resolve(schema: dict[str, Any], definitions: dict[str, Any], depth: int = 4) -> dict[str, Any]:
    """Return the schema with its reference followed, and its first choice but null taken."""
    target = definitions.get(str(schema.get("$ref")).rpartition("/")[2])
    choices = [each for key in ("anyOf", "oneOf", "allOf") for each in _sequence(schema.get(key))]
    inner = next((each for each in [target, *choices] if isinstance(each, dict) and each.get("type") != "null"), None)
    return {**_resolve(inner, definitions, depth - 1), **schema} if depth and inner else schema


def _tokens(text: str) -> Iterator[str]:
    """Yield tokens, and their parts between other marks than hyphens."""
    for match in islice(_TOKEN.finditer(text), MAX_TOKENS):
        yield match.group()
        parts = _PART.findall(match.group())
        yield from parts if len(parts) > 1 else ()


def _names(text: str, value: str) -> bool:
    """Return whether a text has the value, in Latin letters as a whole word."""
    return bool(value) and bool(re.search(rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])", text, re.IGNORECASE))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
