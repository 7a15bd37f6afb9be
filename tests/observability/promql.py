"""Which metrics does a PromQL expression name, and do they exist?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

RAY = Path(str(getattr(find_spec("ray"), "origin", ""))).parent
RAYS_SOURCES = ("serve/_private/*.py", "dashboard/modules/reporter/reporter_agent.py")
"""Where Ray names what its Serve and its nodes report."""
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
OTHERS = {"up", "ALERTS", "serve_app_scrape_up"}
"""Prometheus's own, and what the page at /metrics says of itself."""


@dataclass(frozen=True, slots=True)
class Named:
    """As much of a metric as a page of them needs."""

    name: str
    kind: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


LATER = (
    Named("serve_app_feedback_total", "counter", ("rating",)),
    Named("serve_app_dropped_spans_total", "counter", ("sink",)),
)
"""Agreed on; each counts until the catalogue has it."""


def metrics() -> tuple[Named, ...]:
    """The service's own: those of the catalogue, and those that are to come into it."""
    module = pytest.importorskip("serve_app.observability.metric_catalogue")
    listed = (each for each in vars(module).values() if getattr(each, "kind", "") in SUFFIXES)
    known = {each.name: Named(each.name, each.kind, each.labels, each.buckets) for each in listed}
    return (*known.values(), *(each for each in LATER if each.name not in known))


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
    """The metrics that they read and nobody writes."""
    exported = {f"ray_{each.name}{suffix}" for each in metrics() for suffix in SUFFIXES[each.kind]} | OTHERS
    read = set().union(*map(names, expressions))
    return {name for name in read - exported - recorded if not _rays(name)}


def _rays(name: str) -> bool:
    stem = re.sub(r"_(bucket|count|sum)$", "", name.removeprefix("ray_"))
    quoted = (f'"{stem}"', f'"{stem.removesuffix("_total")}"')
    return name.startswith("ray_") and any(each in _rays_source() for each in quoted)


@cache
def _rays_source() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for glob in RAYS_SOURCES for path in RAY.glob(glob))
