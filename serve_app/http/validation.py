"""Which field is wrong, in one sentence for the one who sent it?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi.exceptions import RequestValidationError

_NAMED = 3
"""Problems told at once; the rest shows when these are mended."""
_NAME_CHARACTERS = 80
"""A name in a message is cut: the client chose its length."""

_SUBJECT = re.compile(r"^(Input|String|List|Tuple)\b")
_KINDS = {"body": "Field", "header": "Header"}
_SAYINGS = {
    "extra_forbidden": "is not known here; remove it",
    "missing": "is missing; add it",
    "model_attributes_type": "should be a JSON object",
    "model_type": "should be a JSON object",
}


def sentence(error: RequestValidationError) -> str:
    """The first problems, each with the name of its field; nothing of the values that were sent."""
    unknown_first = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    return "; ".join(_problem(problem) for problem in unknown_first[:_NAMED])


def _problem(problem: dict[str, Any]) -> str:
    place, *path = problem["loc"]
    saying = _SAYINGS.get(problem["type"]) or _SUBJECT.sub("it", problem["msg"])
    if not path:
        return f"The {place} {saying}"
    name = ".".join(str(step) for step in path)[:_NAME_CHARACTERS]
    return f"{_KINDS.get(place, 'Parameter')} {name!r} {saying.removeprefix('it ')}"
