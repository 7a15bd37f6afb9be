"""Who may come in?"""

from __future__ import annotations

from pydantic import Field

from serve_app.config.forms import Network, VariableName
from serve_app.config.section import Section


class AccessSettings(Section):
    """Keys, and what becomes of those who show wrong ones."""

    admin_key_env: VariableName | None = None
    """The environment variable that holds the operator's key, of at least 32 characters, which makes the others. None
    asks for no keys at all, which is for one machine: the service then refuses to listen on anything but loopback."""
    trusted_proxies: tuple[Network, ...] = ()
    """The addresses and networks of proxies before the service whose `X-Forwarded-For` is believed: anybody can write
    one. A client's address is the last one in it that is none of these."""
    failures_per_minute: float = Field(default=10, gt=0, le=1_000_000)
    """Wrong keys from one address; beyond that they are a 429. A person who mistypes needs fewer, a program that has an
    old key asks more often, and a right key is let in from any address."""
    failures_burst: int = Field(default=10, ge=1, le=1_000_000)
    """Of them at once: a program's first retries are still told that the key is wrong."""
