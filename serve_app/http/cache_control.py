"""May a request be answered with what was answered before? RFC 9111."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serve_app.values import CacheControl

HEADER = "Cache-Control"
_ANEW = {"no-cache", "max-age=0"}
"""The second is what a browser sends that reloads a page."""


def cache_use(values: Iterable[str]) -> CacheControl:
    """What the header says, in however many lines it came; other directives are of no account here."""
    said = {each.strip().lower() for each in ",".join(values).split(",")}
    if "no-store" in said:
        return "no-store"
    return "no-cache" if said & _ANEW else ""
