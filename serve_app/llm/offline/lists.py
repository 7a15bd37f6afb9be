"""Which values does a question list, where a tool takes one at a time?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from serve_app.llm.offline.slots import NAME, TEXTUAL
from serve_app.llm.offline.words import HAN, content

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serve_app.llm.offline.schema import Tool

FEW_CHARACTERS = 2
"""Of a Chinese name: 都 at its end is part of it, as in 成都."""

_AND = r"(?:\s*,\s*(?:and |or )?|\s+(?:and|or|&)\s+)"
_LISTED = re.compile(rf"(?:{_AND}{NAME.pattern})*(?:,? (?:and|or|&) {NAME.pattern})")
_HAN_LIST = re.compile("和|与|跟|及|、|,|以及|还有")


def listed(tool: Tool, text: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The arguments once for each value that the text lists for the one parameter that may be anything."""
    free = [parameter for parameter in tool.required if parameter.is_free]
    value = arguments.get(free[0].name) if len(free) == 1 else None
    if not isinstance(value, str) or TEXTUAL.search(f"{free[0].name} {free[0].description}"):
        return [dict(arguments)]
    return [{**arguments, free[0].name: each} for each in _values_from(value, text, tool)]


def _values_from(value: str, text: str, tool: Tool) -> list[str]:
    """The value and those that a list goes on with after it."""
    following = _LISTED.match(text, text.find(value) + len(value)) if value in text else None
    if following:
        return [value, *(match.group() for match in NAME.finditer(following.group()))]
    if not re.match(f"[{HAN}]", value):
        return [value]
    values = _parts(value)
    end = text.find(value) + len(value)
    for word in content(text, tool.words)[1]:
        if word.start > end and text[end : word.start] == "、":
            values += _parts(word.text)
            end = word.span[1]
    return (
        [*values[:-1], values[-1].removesuffix("都")]
        if len(values) > 1 and len(values[-1]) > FEW_CHARACTERS
        else values
    )


def _parts(stretch: str) -> list[str]:
    """What a Chinese stretch lists; the stretch itself where 和 is part of a name."""
    parts = _HAN_LIST.split(stretch)
    return parts if min(map(len, parts)) >= FEW_CHARACTERS else [stretch]
