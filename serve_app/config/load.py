"""How do a file and the environment become settings, with all their problems told at once?"""

from __future__ import annotations

import re
from copy import copy
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from serve_app.config.environment import DATA_DIR, malformed, read_environment
from serve_app.config.explain import explain, steps_to
from serve_app.config.settings import Settings
from serve_app.config.yaml_file import YamlFile, existing_path, read_yaml
from serve_app.errors import InvalidConfiguration, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

    from serve_app.config.model_settings import ModelEndpoint

CONFIG = "SERVE_APP_CONFIG"
MODEL = "SERVE_APP_MODEL"
BASE_URL = "SERVE_APP_MODEL_BASE_URL"
API_KEY = "SERVE_APP_MODEL_API_KEY"
PREFIX = "SERVE_APP_"
KEY = "SERVE_APP_KEY"
"""The key that the commands show."""
KNOWN = (CONFIG, MODEL, BASE_URL, API_KEY, DATA_DIR, KEY)
SHORTEST_KEY = 32
"""Characters: 128 bits, written in hexadecimal."""
ALMOST = 0.9
"""One or two letters swapped or missing."""


@dataclass(frozen=True, slots=True)
class SettingsDraft:
    """Settings of which some keys may be wrong: those have their defaults, and stand in `problems`."""

    settings: Settings
    problems: tuple[Problem, ...]
    source: YamlFile
    variables: Mapping[str, str]
    """Key -> the environment variable that sets it in place of the file."""

    def where(self, key: str) -> str:
        """Where `key`, such as `model.name`, is set: a line of the file or an environment variable."""
        return self.variables.get(key) or self.source.where(*key.split("."))


def load_settings(path: str | Path) -> Settings:
    """The settings that `path` holds; `SERVE_APP_CONFIG` names another file, `SERVE_APP_MODEL…` another model.

    Raises:
        InvalidConfiguration: with every problem of the file and of the environment variables.
    """
    found = draft_settings(path)
    if found.problems:
        raise InvalidConfiguration(found.problems)
    return found.settings


def draft_settings(path: str | Path) -> SettingsDraft:
    """What can be made of `path` and the environment, so that the rest can be checked beside what is wrong.

    Raises:
        InvalidConfiguration: `.env` cannot be read.
    """
    env = read_environment()
    source = _read(env, path)
    tree, variables = _with_model_of(env, source.tree)
    settings, errors = _salvaged({key: value for key, value in tree.items() if value is not None})
    found = SettingsDraft(_beside(source.path, settings), (), source, variables)
    wrong = tuple(explain(each, found.where(".".join(map(str, steps_to(each))))) for each in errors)
    of_variables = _misspelled(env) + _model_problems(env, settings) + _secret_problems(env, found)
    return replace(found, problems=malformed() + source.problems + wrong + of_variables)


def _read(env: Mapping[str, str], path: str | Path) -> YamlFile:
    if not env.get(CONFIG):
        return read_yaml(Path(path))
    source = read_yaml(Path(env[CONFIG]))
    return replace(source, problems=tuple(replace(each, where=f"{CONFIG}={each.where}") for each in source.problems))


def _with_model_of(env: Mapping[str, str], tree: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """`tree` with the environment's model: a new name brings its own endpoint and key, or none."""
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
    named = {"model.name": MODEL, "model.base_url": BASE_URL, "model.api_key_env": API_KEY}
    variables = {key: name for key, name in named.items() if key.removeprefix("model.") in chosen}
    return {**tree, "model": {**section, **chosen}}, variables


def _salvaged(tree: dict[str, Any]) -> tuple[Settings, list[ErrorDetails]]:
    """The settings of `tree` without the keys that are wrong, and what is wrong with these."""
    try:
        return Settings.model_validate(tree), []
    except ValidationError as error:
        errors = error.errors()
    rest = tree
    for steps in [existing_path(tree, steps_to(each)) for each in errors]:
        rest = _without(rest, steps)
    settings, _ = (Settings(), []) if rest == tree else _salvaged(rest)
    return settings, errors


def _without(tree: Any, steps: Sequence[Any]) -> Any:
    """A section or a list without what `steps` lead to; it may have gone already, with a part that held it.

    With an item of a list go those after it: they would stand where they do not in the file.
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


def _beside(path: Path, settings: Settings) -> Settings:
    """Relative paths are relative to the configuration file."""
    file = (path.parent / settings.orders.file).resolve()
    return settings.model_copy(update={"orders": settings.orders.model_copy(update={"file": file})})


def _misspelled(env: Mapping[str, str]) -> tuple[Problem, ...]:
    """Variables that are almost ours; others of the prefix may be secrets that another configuration names."""
    unknown = sorted(name for name in env if name.startswith(PREFIX) and name not in KNOWN)
    near = [(name, get_close_matches(name, KNOWN, n=1, cutoff=ALMOST)) for name in unknown]
    return tuple(Problem(name, "no such variable", f"Did you mean {found[0]}?") for name, found in near if found)


def _model_problems(env: Mapping[str, str], settings: Settings) -> tuple[Problem, ...]:
    lonely = [name for name in (BASE_URL, API_KEY) if env.get(name)]
    if env.get(MODEL) or settings.model.name != "offline" or not lonely:
        return ()
    what = f"not set, while {' and '.join(lonely)} {'is' if len(lonely) == 1 else 'are'}: the model is still 'offline'"
    return (Problem(MODEL, what, f"Name the model, such as openai:glm-4, or unset {' and '.join(lonely)}"),)


def _secret_problems(env: Mapping[str, str], found: SettingsDraft) -> tuple[Problem, ...]:
    settings = found.settings
    embedding = settings.knowledge.embedding
    fallbacks = {f"model.fallbacks.{place}": each for place, each in enumerate(settings.model.fallbacks)}
    models: dict[str, ModelEndpoint] = {"model": settings.model, **fallbacks}
    named = {
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
        Problem(found.where(key), f"the environment variable {name} {what}", mend)
        for key, name in named.items()
        if name is not None
        for what, mend in _faults_of(env.get(name)) or (_weak(env[name]) if key == "access.admin_key_env" else [])
    )


def _faults_of(secret: str | None) -> list[tuple[str, str]]:
    if secret is None:
        return [("is not set", "Set it, or put it into .env")]
    if not secret.strip():
        return [("is empty", "Give it a value")]
    if any(character in secret for character in "\r\n"):
        return [("holds a line break", "Set it to the secret alone")]
    return []


def _weak(key: str) -> list[tuple[str, str]]:
    """What a key must be that opens everything, and that comes in a header."""
    mend = "Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
    if len(key) < SHORTEST_KEY:
        return [(f"holds a key of fewer than {SHORTEST_KEY} characters, which can be guessed", mend)]
    if not re.fullmatch(r"[!-~]+", key):
        return [("holds a key with a space or a character that no header can carry", mend)]
    return []


def _tool_secrets(settings: Settings) -> dict[str, str]:
    """Key -> the variable that it names."""
    named: dict[str, str] = {}
    for name, tool in settings.tools.by_name.items():
        for kind, section in (("http", tool.http), ("mcp", tool.mcp)):
            for header, variable in (section.headers_env if section else {}).items():
                named[f"tools.{name}.{kind}.headers_env.{header}"] = variable
        for index, variable in enumerate(tool.mcp.environment if tool.mcp else []):
            named[f"tools.{name}.mcp.environment.{index}"] = variable
    return named
