"""How is it said from the command line how much a tenant may ask for?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from serve_app.cli.client import check, read, service, url_option
from serve_app.cli.limits import TITLES, given, limit_options, shown
from serve_app.cli.table import table
from serve_app.values import TenantEntry, TenantList

if TYPE_CHECKING:
    from collections.abc import Iterable

    import httpx

ANSWER_S = 30.0
_PATH = "/admin/tenants"


@click.group()
def tenants() -> None:
    """Say how much all keys of a tenant may ask for together."""


@tenants.command("list")
@url_option
def list_(*, url: str) -> None:
    """List the tenants with limits of their own."""
    with service(url, ANSWER_S) as client:
        found = _listed(client)
    _show(found)
    if not found:
        click.echo("No tenant has limits of its own.")


@tenants.command("limit")
@click.argument("tenant")
@click.option("--weight", type=click.FloatRange(0, 1000, min_open=True), help="Its share, beside the other tenants'.")
@limit_options
@url_option
def limit(*, tenant: str, weight: float | None, url: str, **limits: Any) -> None:
    """Change those limits of TENANT that are named, and its weight."""
    with service(url, ANSWER_S) as client:
        before = next((each for each in _listed(client) if each.tenant == tenant), TenantEntry(tenant=tenant))
        wanted = {"limits": {**before.limits.model_dump(), **given(limits)}, "weight": weight or before.weight}
        _show([read(TenantEntry, check(client.put(f"{_PATH}/{tenant}", json=wanted)))])


def _listed(client: httpx.Client) -> tuple[TenantEntry, ...]:
    return read(TenantList, check(client.get(_PATH))).tenants


def _show(found: Iterable[TenantEntry]) -> None:
    rows = [(each.tenant, *shown(each.limits), f"{each.weight:g}") for each in found]
    for line in table(("tenant", *TITLES, "weight"), rows):
        click.echo(line)
