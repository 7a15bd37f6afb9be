"""`serve-app keys` and `serve-app tenants`: API keys, and rate limits of keys and tenants."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from serve_app.cli.client import TIMEOUT_S, call_service, check_response, open_client, url_option
from serve_app.cli.terminal import format_table, strip_controls
from serve_app.values import ApiKey, ApiKeyList, NewApiKey, RateLimits, Scope, TenantEntry, TenantList

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

F = TypeVar("F", bound="Callable[..., Any]")

KEYS = "/admin/keys"
TENANTS = "/admin/tenants"
NO_LIMIT = "none"
LIMIT_TITLES = ("turns/min", "burst", "tokens/min", "burst")


class Limit(click.ParamType[Any]):
    """A number, or `none` for no limit."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return NO_LIMIT if value == NO_LIMIT else float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor '{NO_LIMIT}'", param, ctx)


def limit_options(command: F) -> F:
    """Add one option for each rate limit to a command."""
    for name in reversed(RateLimits.model_fields):
        unit, _, kind = name.partition("_")
        what = f"{unit.capitalize()} {'per minute' if kind == 'per_minute' else 'at once'}."
        option = click.option(
            f"--{name.replace('_', '-')}", type=Limit(), help=f"{what} '{NO_LIMIT}' removes the limit."
        )
        command = option(command)
    return command


@click.group()
def keys() -> None:
    """Create, list, limit and revoke API keys.

    The running service must require keys: access: {admin_key_env: NAME} in its settings. The commands need the
    operator's key, or another key of the tenant `default` with the scope admin: in --key, or in SERVE_APP_KEY.
    """


@keys.command("create")
@click.option("--tenant", required=True, metavar="NAME", help="The tenant of the key. Tenants share no data.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(get_args(Scope)),
    multiple=True,
    required=True,
    help="What the key may use; repeatable.",
)
@click.option("--name", default="", help="A label for people: who uses the key.")
@limit_options
@url_option
def create(*, tenant: str, scopes: tuple[str, ...], name: str, url: str, **limits: Any) -> None:
    """Create a key. It is shown once: the service stores only its hash."""
    body = {"tenant": tenant, "scopes": list(dict.fromkeys(scopes)), "name": name, "limits": _changed_limits(limits)}
    key = call_service(NewApiKey, url, "POST", KEYS, json=body)
    click.echo(f"Key {key.id} of {key.tenant}, for {_format_scopes(key)}. It is shown only now:", err=True)
    click.echo(key.key)


@keys.command("list")
@url_option
def list_keys(*, url: str) -> None:
    """List the keys of all tenants, oldest first."""
    api_keys = call_service(ApiKeyList, url, "GET", KEYS).keys
    _show_keys(api_keys)
    if not api_keys:
        click.echo("There are no keys.")


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
@url_option
def revoke(*, key_id: str, url: str) -> None:
    """Revoke the key ID. Within two seconds, the service no longer accepts it."""
    with open_client(url, TIMEOUT_S) as client:
        check_response(client.delete(f"{KEYS}/{key_id}"))
    click.echo(f"Key {key_id} is revoked.")


@keys.command("limit")
@click.argument("key_id", metavar="ID")
@limit_options
@url_option
def limit_key(*, key_id: str, url: str, **limits: Any) -> None:
    """Change the given rate limits of the key ID."""
    _show_keys([call_service(ApiKey, url, "PATCH", f"{KEYS}/{key_id}", json=_changed_limits(limits))])


@click.group()
def tenants() -> None:
    """Set rate limits over all keys of a tenant."""


@tenants.command("list")
@url_option
def list_tenants(*, url: str) -> None:
    """List the tenants with limits of their own."""
    entries = call_service(TenantList, url, "GET", TENANTS).tenants
    _show_tenants(entries)
    if not entries:
        click.echo("No tenant has limits of its own.")


@tenants.command("limit")
@click.argument("tenant")
@click.option(
    "--weight",
    type=click.FloatRange(0, 1000, min_open=True),
    help="Its share of a full service, relative to other tenants.",
)
@limit_options
@url_option
def limit_tenant(*, tenant: str, weight: float | None, url: str, **limits: Any) -> None:
    """Change the given rate limits of TENANT, and its weight."""
    entries = call_service(TenantList, url, "GET", TENANTS).tenants
    old = next((each for each in entries if each.tenant == tenant), TenantEntry(tenant=tenant))
    new = {"limits": {**old.limits.model_dump(), **_changed_limits(limits)}, "weight": weight or old.weight}
    _show_tenants([call_service(TenantEntry, url, "PUT", f"{TENANTS}/{tenant}", json=new)])


def _changed_limits(options: dict[str, Any]) -> dict[str, float | None]:
    """Return the limits that the command line sets, in the form of the API."""
    changed = {name: options[name] for name in RateLimits.model_fields if options.get(name) is not None}
    return {name: None if value == NO_LIMIT else value for name, value in changed.items()}


def _show_keys(api_keys: Iterable[ApiKey]) -> None:
    rows = [
        (key.id, key.tenant, _format_scopes(key), strip_controls(key.name), _format_day(key), *_cells(key.limits))
        for key in api_keys
    ]
    for line in format_table(("id", "tenant", "scopes", "name", "since", *LIMIT_TITLES), rows, text_columns=5):
        click.echo(line)


def _show_tenants(entries: Iterable[TenantEntry]) -> None:
    rows = [(each.tenant, *_cells(each.limits), f"{each.weight:g}") for each in entries]
    for line in format_table(("tenant", *LIMIT_TITLES, "weight"), rows):
        click.echo(line)


def _cells(limits: RateLimits) -> tuple[str, ...]:
    return tuple("-" if value is None else f"{value:,g}" for value in dict(limits).values())


def _format_scopes(key: ApiKey) -> str:
    return ",".join(sorted(key.scopes))


def _format_day(key: ApiKey) -> str:
    return datetime.fromtimestamp(key.created_at).astimezone().strftime("%Y-%m-%d")
