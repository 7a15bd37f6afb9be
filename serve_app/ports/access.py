"""Who knows whose key it is, and who keeps the keys?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serve_app.values import ApiKey, ApiKeyRequest, Caller, NewApiKey, TenantEntry, TenantLimits


class Access(Protocol):
    """Knows the keys and the tenants' limits as of the last second, without asking anybody."""

    def caller(self, key: str) -> Caller | None:
        """Whose key this is; None where it is nobody's. It takes the same time in both cases.

        Raises:
            StoreUnavailable: this process has not heard of the keys yet.
        """
        ...

    def tenant_limits(self, tenant: str) -> TenantLimits:
        """What the tenant may ask for; the defaults where nobody has set anything, or nothing was heard yet."""
        ...


class Keys(Protocol):
    """Keeps keys and tenants' limits; every method raises `StoreUnavailable` when nobody can tell.

    What it changes is in force in this process at once, and in all others within two seconds.
    """

    async def create(self, order: ApiKeyRequest) -> NewApiKey:
        """Make a key."""
        ...

    async def listed(self) -> tuple[ApiKey, ...]:
        """The keys, oldest first."""
        ...

    async def revoke(self, key_id: str) -> None:
        """End a key.

        Raises:
            NotFound: there is no such key.
        """
        ...

    async def limit(self, key_id: str, changes: Mapping[str, Any]) -> ApiKey:
        """Change those of a key's limits that are named.

        Raises:
            NotFound: there is no such key.
        """
        ...

    async def tenants(self) -> tuple[TenantEntry, ...]:
        """The tenants whose limits somebody has set, by name."""
        ...

    async def put_tenant(self, tenant: str, limits: TenantLimits) -> TenantEntry:
        """Set a tenant's limits, in place of those that it had."""
        ...
