"""Explains a wrong key of the settings: what is wrong, and how to correct it."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from serve_app.config.settings import Settings
from serve_app.config.validators import SettingsSection
from serve_app.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails

MAX_DEFAULT_CHARACTERS = 40
"""Longer defaults are not shown in a message."""


def key_path(error: ErrorDetails) -> tuple[str | int, ...]:
    """Return the keys that lead to the wrong value.

    Pydantic marks a wrong key of a mapping with a last step `[key]`, which is not part of the path.
    """
    return tuple(step for step in error["loc"] if step != "[key]")


def explain_error(error: ErrorDetails, where: str) -> Problem:
    """Return the problem of `error`, which is at `where`."""
    if error["type"] == "extra_forbidden":
        return Problem(where, "unknown key", _suggest_key(key_path(error)))
    if error["type"] == "missing":
        return Problem(where, "missing", "Add it")
    if error["type"] == "model_type":
        return Problem(where, "not a section", "Write its keys below it, indented")
    what = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return Problem(where, what, _suggest_value(key_path(error)))


def _suggest_key(steps: tuple[str | int, ...]) -> str:
    *parents, key = steps
    valid = sorted(_section_at(parents).model_fields)
    near = get_close_matches(str(key), valid, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {near[0]!r}?"
    elsewhere = [name for name, section in _sections() if key in section.model_fields]
    if elsewhere:
        return f"Did you mean '{elsewhere[0]}.{key}'?"
    return f"Valid keys: {', '.join(valid)}"


def _suggest_value(steps: tuple[str | int, ...]) -> str:
    *parents, key = steps
    field = _section_at(parents).model_fields.get(str(key))
    if field is None or field.is_required():
        return "Change it"
    if isinstance(field.default, str | int | float | Path) and len(str(field.default)) <= MAX_DEFAULT_CHARACTERS:
        return f"Change it, or leave it out for the default, {field.default}"
    return "Change it, or leave it out"


def _sections() -> Iterator[tuple[str, type[SettingsSection]]]:
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, SettingsSection):
            yield name, field.annotation


def _section_at(steps: list[str | int]) -> type[SettingsSection]:
    section: type[SettingsSection] = Settings
    for step in steps:
        field = section.model_fields.get(str(step))
        annotation = field.annotation if field else _extra_of(section)
        section = next(iter(_sections_in(annotation)), section)
    return section


@cache
def _extra_of(section: type[SettingsSection]) -> Any:
    """Return the type of a section's entries that the user names, such as tools."""
    return get_type_hints(section).get("__pydantic_extra__")


def _sections_in(annotation: Any) -> list[type[SettingsSection]]:
    if isinstance(annotation, type) and issubclass(annotation, SettingsSection):
        return [annotation]
    return [section for arg in getattr(annotation, "__args__", ()) for section in _sections_in(arg)]
