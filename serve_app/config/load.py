"""How does a file become settings, with all its problems told at once?"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from serve_app.config.environment import environment
from serve_app.config.tree import Section, Settings
from serve_app.errors import InvalidConfiguration, Problem


def load(path: str | Path) -> Settings:
    """The settings that `path` holds; `SERVE_APP_CONFIG` names another file, `SERVE_APP_MODEL…` another model.

    Raises:
        InvalidConfiguration: with every problem of the file and of the environment variables it names.
    """
    env = environment()
    path = Path(env.get("SERVE_APP_CONFIG") or path)
    tree = _with_model_of(env, _read(path))
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise InvalidConfiguration(tuple(_problem(path, each) for each in error.errors())) from None
    missing = tuple(
        Problem(f"{path}: {where}", f"the environment variable {name} is not set", "Set it, or put it into .env")
        for where, name in _secrets_of(settings)
        if not env.get(name)
    )
    if missing:
        raise InvalidConfiguration(missing)
    orders = settings.orders.model_copy(update={"file": (path.parent / settings.orders.file).resolve()})
    return settings.model_copy(update={"orders": orders})


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problem = Problem(str(path), "no such file", "Name a file in configs/, relative to the working directory")
        raise InvalidConfiguration((problem,)) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())
        raise InvalidConfiguration((Problem(str(path), f"not readable as YAML: {line}", "Mend the file"),)) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        problem = Problem(str(path), "not a mapping of sections", "Begin with a line such as model:")
        raise InvalidConfiguration((problem,))
    return tree


def _with_model_of(env: dict[str, str], tree: dict[str, Any]) -> dict[str, Any]:
    name = env.get("SERVE_APP_MODEL")
    section = tree.get("model") or {}
    if not name or not isinstance(section, dict):
        return tree
    key = "SERVE_APP_MODEL_API_KEY"
    chosen = {"name": name, "base_url": env.get("SERVE_APP_MODEL_BASE_URL"), "api_key_env": key if key in env else None}
    return {**tree, "model": {**section, **chosen}}


def _secrets_of(settings: Settings) -> list[tuple[str, str]]:
    embedding = settings.knowledge.embedding
    named = [
        ("model.api_key_env", settings.model.api_key_env),
        ("knowledge.embedding.api_key_env", embedding.api_key_env if embedding else None),
        ("redis.password_env", settings.redis.password_env),
        ("milvus.token_env", settings.milvus.token_env),
    ]
    return [(where, name) for where, name in named if name is not None]


def _problem(path: Path, error: Any) -> Problem:
    where = f"{path}: {'.'.join(str(step) for step in error['loc'])}"
    if error["type"] != "extra_forbidden":
        return Problem(where, error["msg"].removeprefix("Value error, "), "Mend the value")
    *parents, key = error["loc"]
    valid = sorted(_section_at(parents).model_fields)
    near = get_close_matches(str(key), valid, n=1, cutoff=0.5)
    mend = f"Did you mean {near[0]!r}?" if near else f"Valid keys: {', '.join(valid)}"
    return Problem(where, "unknown key", mend)


def _section_at(steps: list[str]) -> type[Section]:
    section: type[Section] = Settings
    for step in steps:
        field = section.model_fields.get(step)
        if field is None:
            continue  # the name of a tool
        section = next(iter(_sections_in(field.annotation)), section)
    return section


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for arg in getattr(annotation, "__args__", ()) for found in _sections_in(arg)]
