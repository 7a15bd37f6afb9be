"""How are limits given and shown in a terminal?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from serve_app.values import RateLimits

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

NONE = "none"
TITLES = ("turns/min", "burst", "tokens/min", "burst")


class Bound(click.ParamType[Any]):
    """A number, or `none` for no bound."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return NONE if value == NONE else float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor '{NONE}'", param, ctx)


def limit_options(command: F) -> F:
    """One option for each limit."""
    for name in reversed(RateLimits.model_fields):
        of, _, kind = name.partition("_")
        said = f"{of.capitalize()} {'a minute' if kind == 'per_minute' else 'at once'}; '{NONE}' takes the limit away."
        command = click.option(f"--{name.replace('_', '-')}", type=Bound(), help=said)(command)
    return command


def given(options: dict[str, Any]) -> dict[str, float | None]:
    """The limits that were named, as the service takes them."""
    named = {name: options[name] for name in RateLimits.model_fields if options.get(name) is not None}
    return {name: None if value == NONE else value for name, value in named.items()}


def shown(limits: RateLimits) -> tuple[str, ...]:
    """A table's cells."""
    return tuple("-" if value is None else f"{value:,g}" for value in dict(limits).values())
