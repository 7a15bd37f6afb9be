"""Finds all problems that would keep the service from starting or from answering."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from serve_app.config import EMBEDDED, data_dir, draft_settings
from serve_app.errors import InvalidConfiguration, Problem
from serve_app.stores.store_checks import find_milvus_problems, find_redis_problems

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serve_app.config import EmbeddingSettings, Settings, ToolsSettings

ORDER_QUERY = "serve_app.tools.orders:order_query"
HA_PROXY = "RAY_SERVE_ENABLE_HA_PROXY"


def find_problems(path: str | Path, *, stopped: bool = False) -> tuple[Problem, ...]:
    """Return the problems of a settings file, the environment, and all that they name.

    `stopped` means that the service should not run now, so that a lock on its data folder is a problem. At start-up
    this is not known: Serve also builds the application for a new version of a running service.
    """
    try:
        draft = draft_settings(path)
    except InvalidConfiguration as error:
        return error.problems
    settings = draft.settings
    problems = [
        *_check_model(settings),
        *_check_embedding(settings.knowledge.embedding),
        *_check_tools(settings),
        *_check_cache(settings),
        *_check_orders(settings),
        *find_redis_problems(settings.redis),
        *find_milvus_problems(settings.milvus),
    ]
    known = {each.where for each in draft.problems}
    located = (replace(each, where=draft.where(each.where)) for each in problems)
    return (
        *draft.problems,
        *(each for each in located if each.where not in known),
        *_check_data_folder(settings, stopped=stopped),
    )


def find_bind_problems(settings: Settings, host: str | None, where: str) -> Iterator[Problem]:
    """Yield a problem if other machines could call the service without a key.

    `host` is the address that Serve binds, None where it is not running; `where` names the setting.
    """
    from serve_app.deployments.ray_adapter import is_ha_proxy_enabled

    if settings.access.admin_key_env is not None:
        return
    fix = "Name the variable that holds the operator's key, access: {admin_key_env: NAME}"
    if is_ha_proxy_enabled():
        what = "Serve listens on all addresses in HAProxy mode, and no API keys are required"
        yield Problem(HA_PROXY, what, f"{fix}, or leave the variable out")
    elif host is not None and not _is_loopback(host):
        what = f"{host} can be reached from other machines, and no API keys are required"
        yield Problem(where, what, f"{fix}, or listen on 127.0.0.1")


def _is_loopback(host: str) -> bool:
    """Return whether only this machine reaches `host`; other names than `localhost` may mean anything."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_model(settings: Settings) -> Iterator[Problem]:
    from serve_app.llm.models import find_model_problems

    yield from find_model_problems(settings.model)
    if settings.model.fallbacks and settings.model.timeout_s >= settings.agent.turn_timeout_s:
        what = f"a model that hangs leaves no time for its fallbacks: a turn has {settings.agent.turn_timeout_s:g} s"
        yield Problem("model.timeout_s", what, "Make it at most half of agent.turn_timeout_s")


def _check_embedding(settings: EmbeddingSettings | None) -> Iterator[Problem]:
    if settings is not None:
        from serve_app.knowledge.embedding import find_embedding_problems

        yield from find_embedding_problems(settings)


def _check_tools(settings: Settings) -> Iterator[Problem]:
    from serve_app.tools.registry import load_tools

    _, unusable = load_tools(settings.tools.by_name, injectable=[settings.orders])
    yield from unusable.values()
    yield from _check_references(settings.tools)


def _check_references(tools: ToolsSettings) -> Iterator[Problem]:
    """Check the tool names in `fallback` and in `groups`."""
    valid = f"The tools are: {', '.join(tools.by_name)}"
    for name, tool in tools.by_name.items():
        where = f"tools.{name}.fallback"
        if tool.fallback == name:
            yield Problem(where, "a tool cannot be its own fallback", "Name another tool, or set http.standby_url")
        elif tool.fallback and tool.fallback not in tools.by_name:
            yield Problem(where, f"there is no tool {tool.fallback}", valid)
        elif tool.fallback and tools.by_name[tool.fallback].effect == "effect":
            yield Problem(where, f"{tool.fallback} has an effect, so that it cannot be a fallback", valid)
    groups: dict[str, str] = {}
    for group, section in tools.groups.items():
        for index, name in enumerate(section.tools):
            where = f"tools.groups.{group}.tools.{index}"
            if name not in tools.by_name:
                yield Problem(where, f"there is no tool {name}", valid)
            elif name in groups:
                yield Problem(
                    where, f"{name} is already in the group {groups[name]}", "Name each tool in one group only"
                )
            groups.setdefault(name, group)


def _check_cache(settings: Settings) -> Iterator[Problem]:
    listed_later = any(tool.mcp and tool.mcp.tools for tool in settings.tools.by_name.values())
    for index, name in enumerate(settings.cache.live_tools):
        if name not in settings.tools.by_name and not listed_later:
            yield Problem(f"cache.live_tools.{index}", f"there is no tool {name}", "Name a tool of the section tools")


def _check_orders(settings: Settings) -> Iterator[Problem]:
    file = settings.orders.file
    if settings.orders.url or all(tool.function != ORDER_QUERY for tool in settings.tools.by_name.values()):
        return
    fix = 'Write {"order id": "state", …} into it, or set orders.url'
    try:
        orders = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        yield Problem("orders.file", f"{file} cannot be read ({error.strerror})", fix)
    except ValueError as error:
        yield Problem("orders.file", f"{file} is not JSON ({error})", fix)
    else:
        if not isinstance(orders, dict) or not all(isinstance(state, str) for state in orders.values()):
            yield Problem("orders.file", f"{file} does not map order ids to states", fix)


def _check_data_folder(settings: Settings, *, stopped: bool) -> Iterator[Problem]:
    if EMBEDDED not in (settings.redis.url, settings.milvus.url):
        return
    folder = data_dir()
    nearest = next(each for each in (folder, *folder.parents) if os.access(each, os.F_OK))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        what = f"the data folder cannot be used: {nearest} is not a writable folder"
        yield Problem(str(folder), what, "Make it writable, or choose another folder with SERVE_APP_DATA_DIR")
    elif stopped and nearest == folder:
        yield from _check_lock(folder)


def _check_lock(folder: Path) -> Iterator[Problem]:
    from serve_app.deployments.embedded_stores import lock_data_folder

    try:
        lock_data_folder(folder, timeout_s=0).close()
    except InvalidConfiguration as error:
        yield from error.problems
