"""Which field is wrong, in one sentence for the one who sent it?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    return "; ".join(_problem(problem) for problem in _unknown_first(error)[:_NAMED])


def first_field(error: RequestValidationError) -> str | None:
    """The path of the field of the body that the sentence names first; None where that is none of the body's."""
    place, *path = _unknown_first(error)[0]["loc"]
    return _path(path) or None if place == "body" else None


def _unknown_first(error: RequestValidationError) -> list[dict[str, Any]]:
    return sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")


def _path(steps: Sequence[str | int]) -> str:
    return ".".join(str(step) for step in steps)[:_NAME_CHARACTERS]


def _problem(problem: dict[str, Any]) -> str:
    place, *path = problem["loc"]
    saying = _SAYINGS.get(problem["type"]) or _SUBJECT.sub("it", problem["msg"])
    if not path:
        return f"The {place} {saying}"
    return f"{_KINDS.get(place, 'Parameter')} {_path(path)!r} {saying.removeprefix('it ')}"
