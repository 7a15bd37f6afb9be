"""Who asks, and what may they do, and how often?"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from serve_app.values.value import Value

Tenant = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9._@-]{1,64}$",
        description="Whose everything is: sessions, runs, documents, memory and cached answers.",
    ),
]
DEFAULT_TENANT = "default"
"""The operator's own, and everybody's where no keys are asked for."""
Scope = Literal["chat", "knowledge", "admin"]
SCOPES: frozenset[Scope] = frozenset({"chat", "knowledge", "admin"})
KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", description="The middle part of a key; it is no secret.")]


class Limits(Value):
    """How much may be asked for; None sets no bound of its own."""

    turns_per_minute: float | None = Field(default=None, gt=0, le=1e9)
    turns_burst: int | None = Field(
        default=None, ge=1, le=10**9, description="Turns at once; None is a minute's worth."
    )
    tokens_per_minute: float | None = Field(default=None, gt=0, le=1e12)
    tokens_burst: int | None = Field(
        default=None, ge=1, le=10**12, description="Tokens at once; None is a minute's worth."
    )


class Caller(Value):
    """Whose request it is; without keys, everybody may do everything as the tenant `default`."""

    tenant: Tenant = DEFAULT_TENANT
    key_id: str = ""
    """Which key was shown; empty where none are asked for."""
    scopes: frozenset[Scope] = SCOPES
    limits: Limits = Limits()
    """The key's own."""


class TenantLimits(Value):
    """How much all keys of a tenant may ask for together, and its share where there is not enough for all."""

    limits: Limits = Limits()
    weight: float = Field(default=1, gt=0, le=1000, description="Its share, beside those of the other tenants.")


class TenantEntry(TenantLimits):
    """A tenant whose limits somebody has set."""

    tenant: Tenant


class TenantList(Value):
    """The tenants whose limits somebody has set; every other one has the defaults."""

    tenants: tuple[TenantEntry, ...]


class KeyOrder(Value):
    """What a key is to be."""

    tenant: Tenant
    scopes: frozenset[Scope] = Field(min_length=1, description="What it opens: chat, knowledge, admin.")
    name: str = Field(default="", max_length=200, description="For people: who has it.")
    limits: Limits = Limits()


class ApiKey(KeyOrder):
    """A key without its secret."""

    id: KeyId
    created_at: float = Field(description="Unix time in seconds.")


class NewApiKey(ApiKey):
    """A key that was just made, with the secret in it: it is told once and kept nowhere."""

    key: str = Field(description="`sa_ID_SECRET`, for `Authorization: Bearer`.")


class ApiKeyList(Value):
    """The keys of all tenants, oldest first."""

    keys: tuple[ApiKey, ...]


class Metering(Value):
    """What a turn's tokens are charged to, once they are known."""

    tenant_per_minute: float | None = None
    """Tokens; None where the tenant has no limit."""
    key_per_minute: float | None = None
    """Tokens; None where the key has no limit."""
