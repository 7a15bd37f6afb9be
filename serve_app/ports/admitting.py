"""Who knows how much may be asked for, and how much was?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve_app.values import Caller, Context, Metering, TenantLimits


class Tenants(Protocol):
    """Knows what was set for each tenant."""

    def tenant_limits(self, tenant: str) -> TenantLimits:
        """As known within a second; the defaults where nothing was set."""
        ...


class Limiter(Protocol):
    """Knows how much each caller has asked for."""

    async def ask(self, caller: Caller) -> Metering | None:
        """Take a turn from what the caller's key and tenant may have; what its tokens are to be charged to.

        Raises:
            RateLimited: one of them has no room; nothing was taken from either.
        """
        ...


class Meter(Protocol):
    """Keeps account of the tokens that turns have used."""

    async def charge(self, used: Sequence[tuple[Context, int]]) -> None:
        """Take the tokens of each turn from what its key and tenant may have, though there be no more; never fails."""
        ...
