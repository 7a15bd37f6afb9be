"""Which path of ours was asked for?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette._utils import get_route_path

if TYPE_CHECKING:
    from starlette.types import Scope


def path_of(scope: Scope) -> str:
    """The path by which a route is found: without the prefix at which the application stands.

    Nor with a line break at its end, before which the `$` of a route's pattern matches too.
    """
    path: str = get_route_path(scope)
    return path.removesuffix("\n")
