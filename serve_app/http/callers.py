"""Whose request is it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.values import Caller

if TYPE_CHECKING:
    from starlette.types import Scope

ANYBODY = Caller()
_KEY = "serve_app.caller"


def caller_of(scope: Scope) -> Caller:
    """Whoever was let in with this request."""
    caller: Caller = scope.get(_KEY, ANYBODY)
    return caller


def let_in(scope: Scope, caller: Caller) -> None:
    """The request is the caller's from here on."""
    scope[_KEY] = caller
