"""The address that Serve binds, and whether it is safe without API keys."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from serve_app.deployments.ray_private import is_ha_proxy_enabled
from serve_app.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve_app.config import Settings

HA_PROXY = "RAY_SERVE_ENABLE_HA_PROXY"
_MEND = "Name the variable that holds the operator's key, access: {admin_key_env: NAME}"


def find_bind_problems(settings: Settings, host: str | None, where: str) -> Iterator[Problem]:
    """Yield a problem if other machines could call the service without a key.

    `host` is the address that Serve binds, None where it is not running; `where` names the setting.
    """
    if settings.access.admin_key_env is not None:
        return
    if is_ha_proxy_enabled():
        what = "Serve listens on all addresses in HAProxy mode, and no API keys are required"
        yield Problem(HA_PROXY, what, f"{_MEND}, or leave the variable out")
    elif host is not None and not is_loopback(host):
        what = f"{host} can be reached from other machines, and no API keys are required"
        yield Problem(where, what, f"{_MEND}, or listen on 127.0.0.1")


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches `host`; other names than `localhost` may mean anything."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
