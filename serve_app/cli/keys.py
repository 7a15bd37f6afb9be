"""How are keys made, listed, limited and ended from the command line?"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args

import click

from serve_app.cli.client import check, read, service, url_option
from serve_app.cli.limits import TITLES, given, limit_options, shown
from serve_app.cli.table import table
from serve_app.cli.transcript import CONTROLS
from serve_app.values import ApiKey, ApiKeyList, NewApiKey, Scope

if TYPE_CHECKING:
    from collections.abc import Iterable

ANSWER_S = 30.0
_PATH = "/admin/keys"


@click.group()
def keys() -> None:
    """Make keys, and end them.

    The running service must ask for keys: access: {admin_key_env: NAME} in its configuration. The commands show it the
    operator's key, or another one of the tenant `default` with the scope admin: --key, or SERVE_APP_KEY.
    """


@keys.command("create")
@click.option("--tenant", required=True, metavar="NAME", help="Whose key it is; tenants see nothing of one another.")
@click.option(
    "--scope", "scopes", type=click.Choice(get_args(Scope)), multiple=True, required=True, help="What it opens."
)
@click.option("--name", default="", help="Who has it, for people.")
@limit_options
@url_option
def create(*, tenant: str, scopes: tuple[str, ...], name: str, url: str, **limits: Any) -> None:
    """Make a key. It is printed this once; the service keeps no more than a hash of it."""
    order = {"tenant": tenant, "scopes": list(dict.fromkeys(scopes)), "name": name, "limits": given(limits)}
    with service(url, ANSWER_S) as client:
        made = read(NewApiKey, check(client.post(_PATH, json=order)))
    click.echo(f"Key {made.id} of {made.tenant}, for {_scopes(made)}; it is shown this once:", err=True)
    click.echo(made.key)


@keys.command("list")
@url_option
def list_(*, url: str) -> None:
    """List the keys of all tenants, oldest first."""
    with service(url, ANSWER_S) as client:
        found = read(ApiKeyList, check(client.get(_PATH))).keys
    _show(found)
    if not found:
        click.echo("There are no keys.")


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
@url_option
def revoke(*, key_id: str, url: str) -> None:
    """End the key ID: within two seconds it opens nothing any longer."""
    with service(url, ANSWER_S) as client:
        check(client.delete(f"{_PATH}/{key_id}"))
    click.echo(f"Key {key_id} is revoked.")


@keys.command("limit")
@click.argument("key_id", metavar="ID")
@limit_options
@url_option
def limit(*, key_id: str, url: str, **limits: Any) -> None:
    """Change those limits of the key ID that are named."""
    with service(url, ANSWER_S) as client:
        _show([read(ApiKey, check(client.patch(f"{_PATH}/{key_id}", json=given(limits))))])


def _show(found: Iterable[ApiKey]) -> None:
    rows = [
        (key.id, key.tenant, _scopes(key), key.name.translate(CONTROLS), _day(key), *shown(key.limits)) for key in found
    ]
    for line in table(("id", "tenant", "scopes", "name", "since", *TITLES), rows, names=5):
        click.echo(line)


def _scopes(key: ApiKey) -> str:
    return ",".join(sorted(key.scopes))


def _day(key: ApiKey) -> str:
    return datetime.fromtimestamp(key.created_at).astimezone().strftime("%Y-%m-%d")
