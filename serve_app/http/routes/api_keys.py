"""The routes below `/admin/keys` and `/admin/tenants`: API keys, and the limits of tenants."""

import logging
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from serve_app.errors import NotFound
from serve_app.http.dependencies import WITHIN_DEADLINE, Services, ServicesDep
from serve_app.http.json_body import JsonRoute, json_response
from serve_app.http.openapi import body_error_responses, error_responses
from serve_app.stores.api_keys import ApiKeyStore
from serve_app.values import (
    ApiKey,
    ApiKeyList,
    ApiKeyRequest,
    KeyId,
    NewApiKey,
    RateLimits,
    Tenant,
    TenantEntry,
    TenantLimits,
    TenantList,
)

logger = logging.getLogger(__name__)

router = APIRouter(route_class=JsonRoute, tags=["Admin"], dependencies=[WITHIN_DEADLINE])

_OFF = "This service asks for no keys; `access: {admin_key_env: NAME}` in its configuration file has it do so"


def _key_store(services: Services) -> ApiKeyStore:
    if services.authenticator is None:
        raise NotFound(_OFF)
    return services.keys


@router.post(
    "/admin/keys",
    summary="Make a key",
    status_code=201,
    response_model=NewApiKey,
    response_description="The key, which is shown this once: only its hash is kept.",
    responses=body_error_responses(404),
)
async def create_key(services: ServicesDep, body: ApiKeyRequest) -> Response:
    """Make a key. It is valid within two seconds.

    The caller's key must belong to the tenant `default` and have the scope `admin`.
    """
    key = await _key_store(services).create(body)
    logger.warning("key_created", extra={"id": key.id, "of": key.tenant, "scopes": sorted(key.scopes)})
    response = json_response(key, HTTPStatus.CREATED)
    response.headers["Cache-Control"] = "no-store"
    return response


@router.get(
    "/admin/keys",
    summary="List the keys",
    response_model=ApiKeyList,
    response_description="Those of all tenants, oldest first, without their secrets.",
    responses=error_responses(404),
)
async def list_keys(services: ServicesDep) -> Response:
    """List the keys of all tenants.

    The caller's key must belong to the tenant `default` and have the scope `admin`.
    404 if the service requires no keys.
    """
    return json_response(ApiKeyList(keys=await _key_store(services).list_keys()))


@router.patch(
    "/admin/keys/{key_id}",
    summary="Change the limits of a key",
    response_model=ApiKey,
    response_description="The key as it is now.",
    responses=body_error_responses(404, 409),
)
async def limit_key(services: ServicesDep, key_id: Annotated[KeyId, Path()], limits: RateLimits) -> Response:
    """Change the limits that the body names; null removes one.

    They are in force everywhere within two seconds.
    """
    changes = {name: getattr(limits, name) for name in limits.model_fields_set}
    key = await _key_store(services).update_limits(key_id, changes)
    logger.warning("key_limited", extra={"id": key_id, **changes})
    return json_response(key)


@router.delete(
    "/admin/keys/{key_id}",
    summary="End a key",
    status_code=204,
    response_description="It opens nothing any longer.",
    responses=error_responses(404),
)
async def revoke_key(services: ServicesDep, key_id: Annotated[KeyId, Path()]) -> Response:
    """End a key, everywhere within two seconds. Its running turns go on."""
    await _key_store(services).revoke(key_id)
    logger.warning("key_revoked", extra={"id": key_id})
    return Response(status_code=204)


@router.get(
    "/admin/tenants",
    summary="List the tenants with limits of their own",
    response_model=TenantList,
    response_description="By name; every other tenant has the defaults.",
    responses=error_responses(),
)
async def list_tenants(services: ServicesDep) -> Response:
    """List the limits that all keys of a tenant share, and the tenant's weight."""
    return json_response(TenantList(tenants=await services.keys.list_tenants()))


@router.put(
    "/admin/tenants/{tenant}",
    summary="Set the limits of a tenant",
    response_model=TenantEntry,
    response_description="The tenant as it is now.",
    responses=body_error_responses(),
)
async def limit_tenant(services: ServicesDep, tenant: Annotated[Tenant, Path()], limits: TenantLimits) -> Response:
    """Replace the limits of a tenant. They are in force everywhere within two seconds."""
    entry = await services.keys.put_tenant(tenant, limits)
    logger.warning("tenant_limited", extra={"of": tenant, **limits.limits.model_dump(), "weight": limits.weight})
    return json_response(entry)
