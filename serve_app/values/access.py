"""Tenants, API keys, scopes and rate limits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from serve_app.values.value import Value

Tenant = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9._@-]{1,64}$",
        description="The owner of sessions, runs, documents, memory and cached answers.",
    ),
]
DEFAULT_TENANT = "default"
"""The operator's tenant. Without API keys, every request belongs to it."""
Scope = Literal["chat", "knowledge", "admin"]
SCOPES: frozenset[Scope] = frozenset({"chat", "knowledge", "admin"})


def _reject_duplicates(scopes: Any) -> Any:
    if isinstance(scopes, list | tuple) and len({str(each) for each in scopes}) < len(scopes):
        raise ValueError("a scope is named twice")
    return scopes


Scopes = Annotated[frozenset[Scope], BeforeValidator(_reject_duplicates), PlainSerializer(sorted, list[Scope])]
KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", description="The middle part of a key. It is not secret.")]


def _reject_text_and_bool(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError("should be a number")  # noqa: TRY004 - pydantic turns only a ValueError into its own error
    return value


_Rate = Annotated[float, Field(gt=0, le=1e12), BeforeValidator(_reject_text_and_bool)]
_Burst = Annotated[int, Field(ge=1, le=10**12), BeforeValidator(_reject_text_and_bool)]
_Weight = Annotated[float, Field(gt=0, le=1000), BeforeValidator(_reject_text_and_bool)]


class RateLimits(Value):
    """Rate limits of a tenant or of a key. None: no limit."""

    turns_per_minute: _Rate | None = Field(default=None, description="Turns in each minute. None: no limit.")
    turns_burst: _Burst | None = Field(default=None, description="Turns at once. None: as many as in a minute.")
    tokens_per_minute: _Rate | None = Field(
        default=None, description="Tokens of all model calls in each minute. None: no limit."
    )
    tokens_burst: _Burst | None = Field(default=None, description="Tokens at once. None: as many as in a minute.")


class Caller(Value):
    """The authenticated sender of a request; without API keys, the tenant `default` with all scopes."""

    tenant: Tenant = DEFAULT_TENANT
    key_id: str = ""
    """The key of the request. Empty if the service does not require keys."""
    scopes: Scopes = SCOPES
    limits: RateLimits = RateLimits()
    """The rate limits of the key itself."""


class TenantLimits(Value):
    """Rate limits over all keys of a tenant, and its weight in the fair queue."""

    limits: RateLimits = RateLimits()
    weight: _Weight = Field(default=1, description="The tenant's share of a full service, relative to other tenants.")


class TenantEntry(TenantLimits):
    """A tenant that has limits of its own."""

    tenant: Tenant


class TenantList(Value):
    """The tenants that have limits of their own; every other tenant has the defaults."""

    tenants: tuple[TenantEntry, ...]


class ApiKeyRequest(Value):
    """The body of `POST /admin/keys`."""

    tenant: Tenant
    scopes: Scopes = Field(min_length=1, description="What the key may use: chat, knowledge, admin.")
    name: str = Field(default="", max_length=200, description="A label for people: who uses the key.")
    limits: RateLimits = RateLimits()


class ApiKey(ApiKeyRequest):
    """An API key without its secret."""

    id: KeyId
    created_at: float = Field(description="Unix time in seconds.")


class NewApiKey(ApiKey):
    """A new API key with its secret.

    The service returns the secret once and stores only its hash.
    """

    key: str = Field(description="`sa_ID_SECRET`, for `Authorization: Bearer`.")


class ApiKeyList(Value):
    """The API keys of all tenants, oldest first."""

    keys: tuple[ApiKey, ...]


class Metering(Value):
    """The token rate limits that a turn's tokens count against."""

    tenant_per_minute: float | None = None
    """Tokens per minute. None: the tenant has no limit."""
    key_per_minute: float | None = None
    """Tokens per minute. None: the key has no limit."""
