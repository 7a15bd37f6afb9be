"""Authentication by API key, the scopes of the routes, and the limit of wrong keys."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from serve_app.errors import Forbidden, ServeAppError, TooManyFailures, Unauthenticated
from serve_app.http.request_context import client_address, parse_networks, path_of, set_caller
from serve_app.observability.logs import log_context
from serve_app.resilience.gcra import GcraLimit, LocalRateLimiter
from serve_app.values import DEFAULT_TENANT

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Send
    from starlette.types import Scope as Request

    from serve_app.config import AccessSettings
    from serve_app.http.middleware.body_limits import EarlyRejection
    from serve_app.http.request_context import Network
    from serve_app.stores.api_keys import ApiKeyCache
    from serve_app.values import Caller, Scope

logger = logging.getLogger(__name__)

PUBLIC_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"})
"""For load balancers, Prometheus and readers. Every other path needs a key, also one that does not exist."""
SCOPES: dict[str, Scope] = {"agent": "chat", "v1": "chat", "knowledge": "knowledge", "admin": "admin"}
"""The first segment of a path -> the scope that it needs. A new route below one of them needs no entry."""
OPERATOR_PATHS = ("/admin/keys", "/admin/tenants", "/admin/faults")
"""Routes that concern all tenants: for the operator only, whose tenant is `default`."""
MAX_ADDRESSES = 10_000
"""Addresses whose wrong keys are counted, in about one megabyte; a client with more addresses has as many tries."""

_SCHEME = "bearer"


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Finds the caller by the key, and checks that the key opens the path."""

    access: ApiKeyCache
    wrong_keys: LocalRateLimiter
    """By address, in this process: a wrong key needs no call of Redis."""
    trusted: tuple[Network, ...] = ()

    @classmethod
    def of(cls, access: ApiKeyCache, settings: AccessSettings) -> Authenticator:
        limit = GcraLimit(settings.failures_per_minute, settings.failures_burst)
        wrong_keys = LocalRateLimiter(limit, MAX_ADDRESSES)
        return cls(access, wrong_keys, parse_networks(settings.trusted_proxies))

    def authenticate(self, request: Request) -> Caller:
        """Find the caller.

        Raises:
            Unauthenticated: the request has no key, or an unknown one.
            TooManyFailures: likewise, and too many wrong keys came from its address.
            Forbidden: the key does not open the path.
            StoreUnavailable: the keys have not been read from Redis yet.
        """
        caller = self.access.find_caller(key) if (key := bearer_key(request)) else None
        if caller is None:
            raise self._unauthenticated(request, key)
        path = path_of(request)  # the one that routes are matched with
        needed = scope_of(path)
        if needed is not None and needed not in caller.scopes:
            raise Forbidden(f"This key does not have the scope {needed!r}")
        if path.startswith(OPERATOR_PATHS) and caller.tenant != DEFAULT_TENANT:
            raise Forbidden(f"This is for keys of the tenant {DEFAULT_TENANT!r} only")
        return caller

    def _unauthenticated(self, request: Request, key: str) -> ServeAppError:
        if not key:
            return Unauthenticated("Send a key: Authorization: Bearer KEY")
        address = client_address(request, self.trusted)
        if wait_s := self.wrong_keys.take(address):
            return TooManyFailures("Too many wrong keys came from this address", retry_after_s=wait_s)
        logger.warning("key_refused", extra={"address": address})
        return Unauthenticated("This key is not known, or was revoked")


class AuthenticationMiddleware:
    """Sets the caller; refuses a request without a valid key before its body is read."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator, reject: EarlyRejection) -> None:
        self._app = app
        self._authenticator = authenticator
        self._reject = reject

    async def __call__(self, scope: Request, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or path_of(scope) in PUBLIC_PATHS:
            await self._app(scope, receive, send)
            return
        try:
            caller = self._authenticator.authenticate(scope)
        except ServeAppError as error:
            await self._reject(error, scope, receive, send)
            return
        set_caller(scope, caller)
        with log_context({"tenant": caller.tenant, "key_id": caller.key_id}):
            await self._app(scope, receive, send)


def scope_of(path: str) -> Scope | None:
    """The scope that a path needs."""
    return SCOPES.get(path.split("/", 2)[1]) if path.startswith("/") else None


def bearer_key(request: Request) -> str:
    """The key in `Authorization: Bearer KEY`; empty where there is none, or more than one."""
    values = Headers(scope=request).getlist("Authorization")
    scheme, _, key = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    return key.strip() if scheme.lower() == _SCHEME else ""
