"""Who is let in, and to what?"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from serve_app.errors import Forbidden, ServeAppError, TooManyFailures, Unauthenticated
from serve_app.http.addresses import address_of, networks
from serve_app.http.callers import caller_of, let_in
from serve_app.http.failures import Failures
from serve_app.http.paths import path_of
from serve_app.observability.logs import log_context
from serve_app.values import DEFAULT_TENANT

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Send
    from starlette.types import Scope as Request

    from serve_app.config import AccessSettings
    from serve_app.http.addresses import Network
    from serve_app.http.refusing import Refusing
    from serve_app.stores.api_key_cache import ApiKeyCache
    from serve_app.values import Caller, Scope

log = logging.getLogger(__name__)

OPEN = frozenset({"/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"})
"""For load balancers, Prometheus and readers; everything else asks for a key, what does not exist included."""
NEEDS: dict[str, Scope] = {"agent": "chat", "v1": "chat", "knowledge": "knowledge", "admin": "admin"}
"""The first step of a path -> the scope that it asks for."""
OPERATORS = ("/admin/keys", "/admin/tenants", "/admin/faults")
"""What concerns all tenants is for the operator, whose tenant is `default`."""
_SCHEME = "bearer"


def scope_of(path: str) -> Scope | None:
    """The scope that a path asks for."""
    return NEEDS.get(path.split("/", 2)[1]) if path.startswith("/") else None


@dataclass(frozen=True, slots=True)
class Gate:
    """By what a request is judged."""

    access: ApiKeyCache
    failures: Failures
    trusted: tuple[Network, ...] = ()

    @classmethod
    def of(cls, access: ApiKeyCache, settings: AccessSettings) -> Gate:
        failures = Failures(settings.failures_per_minute, settings.failures_burst)
        return cls(access, failures, networks(settings.trusted_proxies))

    def admitted(self, request: Request) -> Caller:
        """Whose request it is.

        Raises:
            Unauthenticated: it shows no key, or nobody's.
            TooManyFailures: likewise, and it is not the first from its address.
            Forbidden: the key does not open the path.
            StoreUnavailable: nobody can tell yet.
        """
        caller = self.access.find_caller(key) if (key := shown(request)) else None
        if caller is None:
            raise self._nobody(request, key)
        path = path_of(request)  # the one by which a route is found
        needed = scope_of(path)
        if needed is not None and needed not in caller.scopes:
            raise Forbidden(f"This key does not have the scope {needed!r}")
        if path.startswith(OPERATORS) and caller.tenant != DEFAULT_TENANT:
            raise Forbidden(f"This is for keys of the tenant {DEFAULT_TENANT!r} only")
        return caller

    def _nobody(self, request: Request, key: str) -> ServeAppError:
        if not key:
            return Unauthenticated("Send a key: Authorization: Bearer KEY")
        address = address_of(request, self.trusted)
        if wait_s := self.failures.add(address):
            return TooManyFailures("Too many wrong keys came from this address", retry_after_s=wait_s)
        log.warning("key_refused", extra={"address": address})
        return Unauthenticated("This key is not known, or was revoked")


def shown(request: Request) -> str:
    """The key in a request; empty where there is none, or more than one."""
    given = Headers(scope=request).getlist("Authorization")
    scheme, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    return key.strip() if scheme.lower() == _SCHEME else ""


class Authenticated:
    """Lets in whoever has a key, and refuses the others before their body is read; pure ASGI."""

    def __init__(self, app: ASGIApp, gate: Gate, refuse: Refusing) -> None:
        self._app = app
        self._gate = gate
        self._refuse = refuse

    async def __call__(self, scope: Request, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or path_of(scope) in OPEN:
            await self._app(scope, receive, send)
            return
        try:
            let_in(scope, self._gate.admitted(scope))
        except ServeAppError as error:
            await self._refuse(error, scope, receive, send)
            return
        caller = caller_of(scope)
        with log_context({"tenant": caller.tenant, "key_id": caller.key_id}):
            await self._app(scope, receive, send)
