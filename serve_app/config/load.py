"""Loads the settings from a YAML file and the environment, and explains their problems."""

from __future__ import annotations

import re
from copy import copy
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import ValidationError

from serve_app.config.environment import DATA_DIR, find_env_file_problems, read_environment
from serve_app.config.settings import Settings
from serve_app.config.validators import SettingsSection
from serve_app.config.yaml_file import YamlFile, existing_path, read_yaml
from serve_app.errors import InvalidConfiguration, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic_core import ErrorDetails

    from serve_app.config.model_settings import ModelEndpoint

CONFIG = "SERVE_APP_CONFIG"
MODEL = "SERVE_APP_MODEL"
BASE_URL = "SERVE_APP_MODEL_BASE_URL"
API_KEY = "SERVE_APP_MODEL_API_KEY"
PREFIX = "SERVE_APP_"
SERVICE_KEY = "SERVE_APP_KEY"
"""The API key that the commands send."""
SERVICE_URL = "SERVE_APP_URL"
"""The address at which the commands find the service."""
VARIABLES = (CONFIG, MODEL, BASE_URL, API_KEY, DATA_DIR, SERVICE_KEY, SERVICE_URL)
MIN_KEY_CHARACTERS = 32
"""128 bits in hexadecimal."""
MIN_SIMILARITY = 0.9
"""A name with one or two letters swapped or missing is at least this similar."""
MAX_DEFAULT_CHARACTERS = 40
"""Longer defaults are not shown in a message."""


@dataclass(frozen=True, slots=True)
class SettingsDraft:
    """Settings that may contain wrong keys: these have their defaults and are listed in `problems`."""

    settings: Settings
    problems: tuple[Problem, ...]
    file: YamlFile
    variables: Mapping[str, str]
    """Key -> the environment variable that overrides it."""

    def where(self, key: str) -> str:
        """Return where `key`, such as `model.name`, is set: a file's line or a variable."""
        return self.variables.get(key) or self.file.where(*key.split("."))


def load_settings(path: str | Path) -> Settings:
    """Return the settings in the file `path`.

    `SERVE_APP_CONFIG` overrides the file, and the variables `SERVE_APP_MODEL…` override the model.

    Raises:
        InvalidConfiguration: contains every problem of the file and of the environment variables.
    """
    draft = draft_settings(path)
    if draft.problems:
        raise InvalidConfiguration(draft.problems)
    return draft.settings


def draft_settings(path: str | Path) -> SettingsDraft:
    """Return the settings with defaults in place of wrong keys, and all problems.

    Raises:
        InvalidConfiguration: `.env` cannot be read.
    """
    env = read_environment()
    file = _read_file(env, path)
    tree, variables = _override_model(env, file.tree)
    settings, errors = _validate_tolerantly({key: value for key, value in tree.items() if value is not None})
    draft = SettingsDraft(_resolve_paths(file.path, settings), (), file, variables)
    of_keys = tuple(_explain_error(each, draft.where(".".join(map(str, _key_path(each))))) for each in errors)
    of_variables = _find_misspelled(env) + _find_model_problems(env, settings) + _find_secret_problems(env, draft)
    return replace(draft, problems=find_env_file_problems() + file.problems + of_keys + of_variables)


def _read_file(env: Mapping[str, str], path: str | Path) -> YamlFile:
    if not env.get(CONFIG):
        return read_yaml(Path(path))
    file = read_yaml(Path(env[CONFIG]))
    return replace(file, problems=tuple(replace(each, where=f"{CONFIG}={each.where}") for each in file.problems))


def _override_model(env: Mapping[str, str], tree: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return `tree` with the model of the environment, and which variable sets which key.

    A new model name also replaces the endpoint and the key: the old ones belong to another model.
    """
    section = tree.get("model") or {}
    chosen: dict[str, Any] = {}
    if env.get(MODEL):
        chosen = {"name": env[MODEL], "base_url": None, "api_key_env": API_KEY if API_KEY in env else None}
    if env.get(BASE_URL):
        chosen["base_url"] = env[BASE_URL]
    if env.get(API_KEY):
        chosen["api_key_env"] = API_KEY
    if not chosen or not isinstance(section, dict):
        return tree, {}
    names = {"model.name": MODEL, "model.base_url": BASE_URL, "model.api_key_env": API_KEY}
    variables = {key: name for key, name in names.items() if key.removeprefix("model.") in chosen}
    return {**tree, "model": {**section, **chosen}}, variables


def _validate_tolerantly(tree: dict[str, Any]) -> tuple[Settings, list[ErrorDetails]]:
    """Return the settings of `tree` without its wrong keys, and the errors of these keys."""
    try:
        return Settings.model_validate(tree), []
    except ValidationError as error:
        errors = error.errors()
    rest = tree
    for steps in [existing_path(tree, _key_path(each)) for each in errors]:
        rest = _without(rest, steps)
    settings, _ = (Settings(), []) if rest == tree else _validate_tolerantly(rest)
    return settings, errors


def _without(tree: Any, steps: Sequence[Any]) -> Any:
    """Return a section or a list without the value at `steps`.

    The items after a removed list item are removed, too: their positions would no longer match the file.
    """
    if not steps or not existing_path(tree, steps[:1]):
        return tree
    head, *rest = steps
    changed = copy(tree)
    if rest:
        changed[head] = _without(tree[head], rest)
    elif isinstance(changed, list):
        del changed[head:]
    else:
        del changed[head]
    return changed


def _resolve_paths(path: Path, settings: Settings) -> Settings:
    """Make relative paths relative to the settings file."""
    file = (path.parent / settings.orders.file).resolve()
    return settings.model_copy(update={"orders": settings.orders.model_copy(update={"file": file})})


def _key_path(error: ErrorDetails) -> tuple[str | int, ...]:
    """Return the keys that lead to the wrong value.

    Pydantic marks a wrong key of a mapping with a last step `[key]`, which is not part of the path.
    """
    return tuple(step for step in error["loc"] if step != "[key]")


def _explain_error(error: ErrorDetails, where: str) -> Problem:
    """Return the problem of `error`, which is at `where`."""
    if error["type"] == "extra_forbidden":
        return Problem(where, "unknown key", _suggest_key(_key_path(error)))
    if error["type"] == "missing":
        return Problem(where, "missing", "Add it")
    if error["type"] == "model_type":
        return Problem(where, "not a section", "Write its keys below it, indented")
    what = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return Problem(where, what, _suggest_value(_key_path(error)))


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


def _find_misspelled(env: Mapping[str, str]) -> tuple[Problem, ...]:
    """Find variables whose names are nearly ours.

    Other variables with the prefix may be secrets that another settings file names.
    """
    unknown = sorted(name for name in env if name.startswith(PREFIX) and name not in VARIABLES)
    near = [(name, get_close_matches(name, VARIABLES, n=1, cutoff=MIN_SIMILARITY)) for name in unknown]
    return tuple(Problem(name, "no such variable", f"Did you mean {found[0]}?") for name, found in near if found)


def _find_model_problems(env: Mapping[str, str], settings: Settings) -> tuple[Problem, ...]:
    unused = [name for name in (BASE_URL, API_KEY) if env.get(name)]
    if env.get(MODEL) or settings.model.name != "offline" or not unused:
        return ()
    names = " and ".join(unused)
    what = f"not set, while {names} {'is' if len(unused) == 1 else 'are'}: the model is still 'offline'"
    return (Problem(MODEL, what, f"Name the model, such as openai:glm-4, or unset {names}"),)


def _find_secret_problems(env: Mapping[str, str], draft: SettingsDraft) -> tuple[Problem, ...]:
    settings = draft.settings
    embedding = settings.knowledge.embedding
    fallbacks = {f"model.fallbacks.{place}": each for place, each in enumerate(settings.model.fallbacks)}
    models: dict[str, ModelEndpoint] = {"model": settings.model, **fallbacks}
    variables = {
        **{f"{where}.api_key_env": each.api_key_env for where, each in models.items()},
        **{
            f"{where}.options_env.{option}": variable
            for where, each in models.items()
            for option, variable in each.options_env.items()
        },
        "knowledge.embedding.api_key_env": embedding.api_key_env if embedding else None,
        **{
            f"knowledge.embedding.options_env.{option}": variable
            for option, variable in (embedding.options_env if embedding else {}).items()
        },
        "access.admin_key_env": settings.access.admin_key_env,
        "redis.password_env": settings.redis.password_env,
        "milvus.token_env": settings.milvus.token_env,
        **_tool_secrets(settings),
    }
    return tuple(
        Problem(draft.where(key), f"the environment variable {name} {what}", fix)
        for key, name in variables.items()
        if name is not None
        for what, fix in _check_secret(env.get(name), is_admin_key=key == "access.admin_key_env")
    )


def _check_secret(secret: str | None, *, is_admin_key: bool) -> list[tuple[str, str]]:
    if secret is None:
        return [("is not set", "Set it, or put it into .env")]
    if not secret.strip():
        return [("is empty", "Give it a value")]
    if any(character in secret for character in "\r\n"):
        return [("holds a line break", "Set it to the secret alone")]
    return _check_admin_key(secret) if is_admin_key else []


def _check_admin_key(key: str) -> list[tuple[str, str]]:
    """Check that the key cannot be guessed and can be sent in a header."""
    fix = "Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
    if len(key) < MIN_KEY_CHARACTERS:
        return [(f"holds a key of fewer than {MIN_KEY_CHARACTERS} characters, which can be guessed", fix)]
    if not re.fullmatch(r"[!-~]+", key):
        return [("holds a key with a space or a character that no header can carry", fix)]
    return []


def _tool_secrets(settings: Settings) -> dict[str, str]:
    """Return key -> the variable that it names, for all tools."""
    variables: dict[str, str] = {}
    for name, tool in settings.tools.by_name.items():
        for kind, section in (("http", tool.http), ("mcp", tool.mcp)):
            for header, variable in (section.headers_env if section else {}).items():
                variables[f"tools.{name}.{kind}.headers_env.{header}"] = variable
        for index, variable in enumerate(tool.mcp.environment if tool.mcp else []):
            variables[f"tools.{name}.mcp.environment.{index}"] = variable
    return variables
