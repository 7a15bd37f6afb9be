"""How does the operator make keys, change them and end them over HTTP?"""

import logging
from http import HTTPStatus
from typing import Annotated

from fastapi import FastAPI, Path
from starlette.requests import Request
from starlette.responses import Response

from serve_app.errors import NotFound
from serve_app.http.request_context import RequestContexts, answer_timeout_s, time_limit
from serve_app.http.responses import body_refusals, json_response, refusals
from serve_app.http.services import Services
from serve_app.stores.api_key_store import ApiKeyStore
from serve_app.values import ApiKey, ApiKeyList, ApiKeyRequest, KeyId, NewApiKey, RateLimits

log = logging.getLogger(__name__)

_PATH = "/admin/keys"
_OFF = "This service asks for no keys; `access: {admin_key_env: NAME}` in its configuration file has it do so"
_KeyId = Annotated[KeyId, Path()]


def add_api_keys(api: FastAPI, services: Services, contexts: RequestContexts) -> None:
    """`POST` and `GET /admin/keys`, `PATCH` and `DELETE /admin/keys/{key_id}`."""
    _add_create(api, services, contexts)
    _add_list(api, services, contexts)
    _add_limit(api, services, contexts)
    _add_revoke(api, services, contexts)


def _add_create(api: FastAPI, services: Services, contexts: RequestContexts) -> None:
    @api.post(
        _PATH,
        tags=["Admin"],
        summary="Make a key",
        status_code=201,
        response_model=NewApiKey,
        response_description="The key, which is told this once: only a hash of it is kept.",
        responses=body_refusals(404),
    )
    async def create(request: Request, order: ApiKeyRequest) -> Response:
        """For keys of the tenant `default` with the scope `admin`. It opens what it is for within two seconds."""
        async with time_limit(answer_timeout_s(contexts.of(request))):
            made = await _asked_for(services).create(order)
        log.warning("key_created", extra={"id": made.id, "of": made.tenant, "scopes": sorted(made.scopes)})
        response = json_response(made, HTTPStatus.CREATED)
        response.headers["Cache-Control"] = "no-store"
        return response


def _add_list(api: FastAPI, services: Services, contexts: RequestContexts) -> None:
    @api.get(
        _PATH,
        tags=["Admin"],
        summary="List the keys",
        response_model=ApiKeyList,
        response_description="Those of all tenants, oldest first, without their secrets.",
        responses=refusals(404),
    )
    async def listed(request: Request) -> Response:
        """For keys of the tenant `default` with the scope `admin`; 404 where the service asks for no keys."""
        async with time_limit(answer_timeout_s(contexts.of(request))):
            return json_response(ApiKeyList(keys=await _asked_for(services).list_keys()))


def _add_limit(api: FastAPI, services: Services, contexts: RequestContexts) -> None:
    @api.patch(
        f"{_PATH}/{{key_id}}",
        tags=["Admin"],
        summary="Change the limits of a key",
        response_model=ApiKey,
        response_description="The key as it is now.",
        responses=body_refusals(404, 409),
    )
    async def limit(request: Request, key_id: _KeyId, limits: RateLimits) -> Response:
        """Those that the body names; null takes one away. They are in force everywhere within two seconds."""
        changes = {name: getattr(limits, name) for name in limits.model_fields_set}
        async with time_limit(answer_timeout_s(contexts.of(request))):
            changed = await _asked_for(services).update_limits(key_id, changes)
        log.warning("key_limited", extra={"id": key_id, **changes})
        return json_response(changed)


def _add_revoke(api: FastAPI, services: Services, contexts: RequestContexts) -> None:
    @api.delete(
        f"{_PATH}/{{key_id}}",
        tags=["Admin"],
        summary="End a key",
        status_code=204,
        response_description="It opens nothing any longer.",
        responses=refusals(404),
    )
    async def revoke(request: Request, key_id: _KeyId) -> Response:
        """Everywhere within two seconds; turns that it has begun go on."""
        async with time_limit(answer_timeout_s(contexts.of(request))):
            await _asked_for(services).revoke(key_id)
        log.warning("key_revoked", extra={"id": key_id})
        return Response(status_code=204)


def _asked_for(services: Services) -> ApiKeyStore:
    if services.authenticator is None:
        raise NotFound(_OFF)
    return services.keys
