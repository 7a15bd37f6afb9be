"""What does a bound tool want, as far as its schema says?"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from serve_app.llm.offline import described
from serve_app.llm.offline.fields import fields_of
from serve_app.llm.offline.patterns import safe
from serve_app.llm.offline.shapes import MAX_TOKEN_CHARACTERS
from serve_app.llm.offline.words import vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from serve_app.llm.offline.fields import Field, Kind
    from serve_app.llm.offline.shapes import Shape

_IDENTIFIER_NAME = re.compile(
    r"(?:^|_)(?:id|ids|no|num|number|code|sku|key|ref|reference|serial)$|(?<=[a-z])(?:Id|No|Number|Code)$"
)
_IDENTIFIER_WORDS = re.compile(
    r"\b(?:id|number|code|identifier|reference)\b|编号|号码|单号|代码|序号|[^\s符信账帐称]号", re.IGNORECASE
)
_QUERY_NAME = re.compile(r"(?:^|_)(?:query|question|q|keywords?|search|topic|search_terms?)(?:$|_)", re.IGNORECASE)
_QUERY_WORDS = re.compile(
    r"\b(?:question|query|keywords?|search|topic)\b|问题|搜索|检索|关键词|关键字|查询内容", re.IGNORECASE
)
_UNSPECIFIC = vocabulary(
    "name id number no value text string type code example format given optional required input 名称 名字 编号"
)
"""Words that a description says of any parameter."""
_SEARCHING = re.compile(
    r"search|\bfind\b|knowledge|retriev|documents?\b|look ?up|搜索|检索|查找|知识|文档|查询", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of a tool."""

    name: str
    kind: Kind
    required: bool
    description: str
    words: frozenset[str]
    choices: tuple[Any, ...] = ()
    shape: Shape | None = None
    resembling: Shape | None = None
    """What identifiers of the same make but with other letters look like; None where the schema is strict."""
    examples: tuple[str, ...] = ()
    pattern: str | None = None
    minimum: float = float("-inf")
    maximum: float = float("inf")
    many: bool = False
    """Whether it takes a list of such values."""

    @property
    def is_free(self) -> bool:
        """Whether any text may be the value."""
        return self.kind == "string" and not self.choices and self.shape is None

    def allows(self, value: str) -> bool:
        """Whether the schema's pattern, where it can be tried, lets `value` pass."""
        compiled = safe(self.pattern) if self.pattern and len(value) <= MAX_TOKEN_CHARACTERS else None
        return compiled is None or compiled.search(value) is not None


@dataclass(frozen=True, slots=True)
class Tool:
    """A bound tool."""

    name: str
    description: str
    parameters: tuple[Parameter, ...]
    words: frozenset[str]
    """What its name, its description and its parameters speak of."""

    @property
    def required(self) -> tuple[Parameter, ...]:
        return tuple(parameter for parameter in self.parameters if parameter.required)

    @property
    def identifier(self) -> Parameter | None:
        """The parameter that an identifier fills."""
        shaped = [parameter for parameter in self.parameters if parameter.shape is not None]
        return next((parameter for parameter in shaped if parameter.required), shaped[0] if shaped else None)

    @property
    def query(self) -> Parameter | None:
        """The parameter that takes a whole question, where this is a search."""
        wanted = self.required or self.parameters
        if len(wanted) != 1 or not wanted[0].is_free or wanted[0].many:
            return None
        only = wanted[0]
        described = _QUERY_WORDS.search(only.description) and not _IDENTIFIER_WORDS.search(only.description)
        searches = _SEARCHING.search(self.name.replace("_", " ")) or _SEARCHING.search(self.description)
        return only if _QUERY_NAME.search(only.name) or (described and searches) else None


def tools_of(bound: Iterable[Mapping[str, Any]]) -> list[Tool]:
    """The tools, in the order in which they were bound; what is no function is left out."""
    functions = [tool["function"] for tool in bound if isinstance(tool.get("function"), dict)]
    return [_tool(json.dumps(function, default=str)) for function in functions]


@lru_cache(maxsize=256)
def _tool(serialised: str) -> Tool:
    function = json.loads(serialised)
    name, description = str(function.get("name") or ""), str(function.get("description") or "")
    fields = fields_of(function.get("parameters"))
    alone = len([field for field in fields if field.required] or fields) == 1
    parameters = tuple(_parameter(field, description if alone else "") for field in fields)
    words = vocabulary(f"{name} {description}").union(*(parameter.words for parameter in parameters))
    return Tool(name, description, parameters, words)


def _parameter(field: Field, hint: str) -> Parameter:
    """The parameter; `hint` is the tool's description where it can mean no other."""
    examples = [*field.examples, *described.examples_in(field.description)]
    textual = field.kind == "string" and not field.choices
    by_pattern = described.of_pattern(field.pattern, examples) if field.pattern and textual else None
    return Parameter(
        name=field.name,
        kind=field.kind,
        required=field.required,
        description=field.description,
        words=_words(field, examples),
        choices=field.choices,
        shape=by_pattern or (_shape(field, examples, hint) if textual else None),
        resembling=described.resembling(examples) if textual and by_pattern is None else None,
        examples=tuple(examples),
        pattern=field.pattern,
        minimum=field.minimum,
        maximum=field.maximum,
        many=field.many,
    )


def _shape(field: Field, examples: list[str], hint: str) -> Shape | None:
    """The shape that anything but a pattern gives."""
    called_one = _IDENTIFIER_NAME.search(field.name) or (
        _IDENTIFIER_WORDS.search(field.description) and not _QUERY_NAME.search(field.name)
    )
    return (
        described.of_examples(examples)
        or described.in_words(field.description)
        or described.of_format(field.format or "")
        or described.of_examples(described.examples_in(hint))
        or described.in_words(hint)
        or (described.ANY if called_one and not examples else None)
    )


def _words(field: Field, examples: list[str]) -> frozenset[str]:
    """What a parameter speaks of: an example is one value of many, a choice is named where it is wanted."""
    description = field.description
    for example in filter(None, examples):
        description = description.replace(example, " ")
    return vocabulary(f"{field.name} {description} {' '.join(map(str, field.choices))}") - _UNSPECIFIC
