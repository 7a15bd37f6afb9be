"""How do arguments get into a URL without changing where it leads?"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from serve_app.tools.tool import WrongArguments

if TYPE_CHECKING:
    from collections.abc import Mapping

PARAMETER = re.compile(r"\{([A-Za-z_]\w*)\}")
SEPARATOR = re.compile(r"[/\\]")
STEPS = {".", ".."}


def parameters(template: str) -> list[str]:
    """The names that `template` has a place for."""
    return PARAMETER.findall(template)


def filled(template: str, given: Mapping[str, Any]) -> str:
    """`template` with the values of `given`, percent-encoded, so that each stays within its place.

    Raises:
        WrongArguments: a value makes a part of the path empty, or holds a step up (`..`): some servers take it after
            they have decoded it.
    """
    url = PARAMETER.sub(lambda place: quote(as_text(given[place[1]]), safe=""), template)
    pairs = zip(urlsplit(template).path.split("/"), urlsplit(url).path.split("/"), strict=True)
    for part, value in pairs:
        if part != value and (not value or STEPS & set(SEPARATOR.split(unquote(value)))):
            raise WrongArguments(f"{', '.join(parameters(part))}: not a value that a URL can hold")
    return url


def as_text(value: Any) -> str:
    """A JSON value in a URL: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
