"""Who asks, and what may they do, and how often?"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from serve_app.values.value import Value

Tenant = Annotated[str, Field(pattern=r"^[A-Za-z0-9._@-]{1,64}$")]
"""Whose everything is: sessions, runs, documents, memory and cached answers."""
Scope = Literal["chat", "knowledge", "admin"]
SCOPES: frozenset[Scope] = frozenset({"chat", "knowledge", "admin"})


class Limits(Value):
    """How much may be asked for; None sets no bound of its own."""

    turns_per_minute: float | None = Field(default=None, gt=0)
    turns_burst: int | None = Field(default=None, ge=1, description="Turns at once; None is a minute's worth.")
    tokens_per_minute: float | None = Field(default=None, gt=0)
    tokens_burst: int | None = Field(default=None, ge=1, description="Tokens at once; None is a minute's worth.")


class Caller(Value):
    """Whose request it is; without keys, everybody may do everything as the tenant `default`."""

    tenant: Tenant = "default"
    key_id: str = ""
    """Which key was shown; empty where none are asked for."""
    scopes: frozenset[Scope] = SCOPES
    limits: Limits = Limits()
    """The key's own."""
