"""Whose request is it, and who pays for it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.values import Caller

if TYPE_CHECKING:
    from starlette.types import Scope

    from serve_app.values import Metering

ANYBODY = Caller()
_KEY = "serve_app.caller"
_METERING = "serve_app.metering"


def caller_of(scope: Scope) -> Caller:
    """Whoever was let in with this request."""
    caller: Caller = scope.get(_KEY, ANYBODY)
    return caller


def let_in(scope: Scope, caller: Caller) -> None:
    """The request is the caller's from here on."""
    scope[_KEY] = caller


def metering_of(scope: Scope) -> Metering | None:
    """What the tokens of the request's turn are charged to."""
    metering: Metering | None = scope.get(_METERING)
    return metering


def meter(scope: Scope, metering: Metering | None) -> None:
    """The tokens of the request's turn are charged to this."""
    scope[_METERING] = metering
