"""The private parts of Ray that this package uses, each with its reason.

Ray has no public name for any of them; an upgrade of Ray is checked here first.
"""

from __future__ import annotations

import ray
from ray.serve._private import constants
from ray.serve._private.logging_utils import log_access_log_filter

DROP_ACCESS_LOG = log_access_log_filter
"""Serve's filter against its access log: Serve adds it to handlers, and only its identity tells that it did."""


def is_ha_proxy_enabled() -> bool:
    """Return whether Serve runs HAProxy, which binds all addresses, whatever `http_options.host` says."""
    return bool(constants.RAY_SERVE_ENABLE_HA_PROXY)


def get_serve_host() -> str | None:
    """Return the address that the running Serve binds; None if none runs.

    Serve binds its port before it builds an application. Its public status does not have the address.
    """
    from ray.serve.context import _get_global_client

    if not ray.is_initialized():
        return None
    client = _get_global_client(raise_if_no_controller_running=False)
    host: str | None = client.http_config.host if client else None
    return host
