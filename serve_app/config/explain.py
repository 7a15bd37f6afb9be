"""How is a key that the settings refuse told: what is wrong with it, and how to mend it?"""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from serve_app.config.settings import Settings
from serve_app.config.validators import Section
from serve_app.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails

SHORT = 40
"""Characters of a default that still fits into a line."""


def steps_to(error: ErrorDetails) -> tuple[str | int, ...]:
    """The keys that lead to what is refused; pydantic marks a refused key of a mapping by a last step `[key]`."""
    return tuple(step for step in error["loc"] if step != "[key]")


def explain(error: ErrorDetails, where: str) -> Problem:
    """One line about `error`, which stands at `where`."""
    if error["type"] == "extra_forbidden":
        return Problem(where, "unknown key", _nearest(steps_to(error)))
    if error["type"] == "missing":
        return Problem(where, "missing", "Add it")
    if error["type"] == "model_type":
        return Problem(where, "not a section", "Write its keys below it, indented")
    what = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return Problem(where, what, _instead(steps_to(error)))


def _nearest(steps: tuple[str | int, ...]) -> str:
    *parents, key = steps
    valid = sorted(_section_at(parents).model_fields)
    near = get_close_matches(str(key), valid, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {near[0]!r}?"
    elsewhere = [name for name, section in _sections() if key in section.model_fields]
    if elsewhere:
        return f"Did you mean '{elsewhere[0]}.{key}'?"
    return f"Valid keys: {', '.join(valid)}"


def _instead(steps: tuple[str | int, ...]) -> str:
    *parents, key = steps
    field = _section_at(parents).model_fields.get(str(key))
    if field is None or field.is_required():
        return "Change it"
    if isinstance(field.default, str | int | float | Path) and len(str(field.default)) <= SHORT:
        return f"Change it, or leave it out for the default, {field.default}"
    return "Change it, or leave it out"


def _sections() -> Iterator[tuple[str, type[Section]]]:
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield name, field.annotation


def _section_at(steps: list[str | int]) -> type[Section]:
    section: type[Section] = Settings
    for step in steps:
        field = section.model_fields.get(str(step))
        annotation = field.annotation if field else _extra_of(section)
        section = next(iter(_sections_in(annotation)), section)
    return section


@cache
def _extra_of(section: type[Section]) -> Any:
    """What a section holds under names of the user's, such as a tool's."""
    return get_type_hints(section).get("__pydantic_extra__")


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for arg in getattr(annotation, "__args__", ()) for found in _sections_in(arg)]
