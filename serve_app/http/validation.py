"""Describes validation errors in one sentence for the client."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi.exceptions import RequestValidationError

MAX_PROBLEMS = 3
"""Problems in one message; the others show when these are corrected."""
MAX_NAME_CHARACTERS = 80
"""The client chooses the length of a field's name."""

_SUBJECT = re.compile(r"^(Input|String|List|Tuple)\b")
_KINDS = {"body": "Field", "header": "Header"}
_MESSAGES = {
    "extra_forbidden": "is not known here; remove it",
    "missing": "is missing; add it",
    "model_attributes_type": "should be a JSON object",
    "model_type": "should be a JSON object",
}


def describe_validation_error(error: RequestValidationError) -> str:
    """The first problems with the names of their fields, never the values that were sent."""
    return "; ".join(_describe_problem(problem) for problem in _unknown_fields_first(error)[:MAX_PROBLEMS])


def first_field(error: RequestValidationError) -> str | None:
    """The path of the body's field that the message names first.

    None where the message names a parameter or a header first.
    """
    place, *path = _unknown_fields_first(error)[0]["loc"]
    return _join_path(path) or None if place == "body" else None


def _unknown_fields_first(error: RequestValidationError) -> list[dict[str, Any]]:
    return sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")


def _join_path(steps: Sequence[str | int]) -> str:
    return ".".join(str(step) for step in steps)[:MAX_NAME_CHARACTERS]


def _describe_problem(problem: dict[str, Any]) -> str:
    place, *path = problem["loc"]
    message = _MESSAGES.get(problem["type"]) or _SUBJECT.sub("it", problem["msg"])
    if not path:
        return f"The {place} {message}"
    return f"{_KINDS.get(place, 'Parameter')} {_join_path(path)!r} {message.removeprefix('it ')}"
