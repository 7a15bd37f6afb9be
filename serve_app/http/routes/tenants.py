"""How does the operator say how much a tenant may ask for?"""

import logging
from typing import Annotated

from fastapi import FastAPI, Path
from starlette.requests import Request
from starlette.responses import Response

from serve_app.http.request_context import RequestContexts, answer_timeout_s, time_limit
from serve_app.http.responses import body_refusals, json_response, refusals
from serve_app.stores.api_key_store import ApiKeyStore
from serve_app.values import Tenant, TenantEntry, TenantLimits, TenantList

log = logging.getLogger(__name__)

_PATH = "/admin/tenants"


def add_tenants(api: FastAPI, keys: ApiKeyStore, contexts: RequestContexts) -> None:
    """`GET /admin/tenants` and `PUT /admin/tenants/{tenant}`."""

    @api.get(
        _PATH,
        tags=["Admin"],
        summary="List the tenants with limits of their own",
        response_model=TenantList,
        response_description="By name; every other tenant has the defaults.",
        responses=refusals(),
    )
    async def listed(request: Request) -> Response:
        """What all keys of a tenant may ask for together, and its weight."""
        async with time_limit(answer_timeout_s(contexts.of(request))):
            return json_response(TenantList(tenants=await keys.list_tenants()))

    @api.put(
        f"{_PATH}/{{tenant}}",
        tags=["Admin"],
        summary="Set the limits of a tenant",
        response_model=TenantEntry,
        response_description="The tenant as it is now.",
        responses=body_refusals(),
    )
    async def put(request: Request, tenant: Annotated[Tenant, Path()], limits: TenantLimits) -> Response:
        """In place of those that it had. They are in force everywhere within two seconds."""
        async with time_limit(answer_timeout_s(contexts.of(request))):
            entry = await keys.put_tenant(tenant, limits)
        log.warning("tenant_limited", extra={"of": tenant, **limits.limits.model_dump(), "weight": limits.weight})
        return json_response(entry)
