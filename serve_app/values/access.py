"""Who asks, and what may they do, and how often?"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

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


def _once(scopes: Any) -> Any:
    if isinstance(scopes, list | tuple) and len({str(each) for each in scopes}) < len(scopes):
        raise ValueError("a scope is named twice")
    return scopes


Scopes = Annotated[frozenset[Scope], BeforeValidator(_once), PlainSerializer(sorted, list[Scope])]
KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", description="The middle part of a key; it is no secret.")]


def _number(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError("should be a number")  # noqa: TRY004 - pydantic takes this one for a refusal
    return value


_Rate = Annotated[float, Field(gt=0, le=1e12), BeforeValidator(_number)]
_Burst = Annotated[int, Field(ge=1, le=10**12), BeforeValidator(_number)]
_Weight = Annotated[float, Field(gt=0, le=1000), BeforeValidator(_number)]


class RateLimits(Value):
    """How much may be asked for; None sets no bound of its own."""

    turns_per_minute: _Rate | None = None
    turns_burst: _Burst | None = Field(default=None, description="Turns at once; None is a minute's worth.")
    tokens_per_minute: _Rate | None = None
    tokens_burst: _Burst | None = Field(default=None, description="Tokens at once; None is a minute's worth.")


class Caller(Value):
    """Whose request it is; without keys, everybody may do everything as the tenant `default`."""

    tenant: Tenant = DEFAULT_TENANT
    key_id: str = ""
    """Which key was shown; empty where none are asked for."""
    scopes: Scopes = SCOPES
    limits: RateLimits = RateLimits()
    """The key's own."""


class TenantLimits(Value):
    """How much all keys of a tenant may ask for together, and its share where there is not enough for all."""

    limits: RateLimits = RateLimits()
    weight: _Weight = Field(default=1, description="Its share, beside those of the other tenants.")


class TenantEntry(TenantLimits):
    """A tenant whose limits somebody has set."""

    tenant: Tenant


class TenantList(Value):
    """The tenants whose limits somebody has set; every other one has the defaults."""

    tenants: tuple[TenantEntry, ...]


class ApiKeyRequest(Value):
    """What a key is to be."""

    tenant: Tenant
    scopes: Scopes = Field(min_length=1, description="What it opens: chat, knowledge, admin.")
    name: str = Field(default="", max_length=200, description="For people: who has it.")
    limits: RateLimits = RateLimits()


class ApiKey(ApiKeyRequest):
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
