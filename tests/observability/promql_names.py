"""The metrics that a PromQL expression reads, and whether somebody exports them."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from serve_app.observability import metric_catalogue

if TYPE_CHECKING:
    from collections.abc import Iterable

RAY = Path(str(getattr(find_spec("ray"), "origin", ""))).parent
RAYS_SOURCES = ("serve/_private/*.py", "dashboard/modules/reporter/reporter_agent.py")
"""Ray's sources with the names of its own metrics."""
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
OTHERS = {"up", "ALERTS", "serve_app_scrape_up"}
"""Prometheus's own, and the page's own at /metrics."""


_NOT_NAMES = re.compile(
    r"""\{[^}]*\} | "[^"]*" | \[[^\]]*\]                  # matchers, strings, windows
    | \b(?:by|on|ignoring|without|group_left|group_right)\s*\([^)]*\)""",
    re.VERBOSE,
)
_NAME = re.compile(r"(?<![\w.:])[a-zA-Z_:][\w:]*(?![\w:]|\s*\()")  # no function, no unit of a number
_WORDS = {"by", "on", "ignoring", "without", "group_left", "group_right", "and", "or", "unless", "offset", "bool"}


def names(expression: str) -> set[str]:
    """The metrics that the expression reads."""
    bare = _NOT_NAMES.sub(" ", expression)
    return set(_NAME.findall(bare)) - _WORDS


def unknown(expressions: Iterable[str], recorded: set[str]) -> set[str]:
    """The metrics that they read and nobody exports."""
    exported = {f"ray_{each.name}{suffix}" for each in metric_catalogue.ALL for suffix in SUFFIXES[each.kind]} | OTHERS
    read = set().union(*map(names, expressions))
    return {name for name in read - exported - recorded if not _is_rays(name)}


def _is_rays(name: str) -> bool:
    stem = re.sub(r"_(bucket|count|sum)$", "", name.removeprefix("ray_"))
    quoted = (f'"{stem}"', f'"{stem.removesuffix("_total")}"')
    return name.startswith("ray_") and any(each in _rays_source() for each in quoted)


@cache
def _rays_source() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for glob in RAYS_SOURCES for path in RAY.glob(glob))
