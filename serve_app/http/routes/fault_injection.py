"""`GET`, `PUT` and `DELETE /admin/faults`: fault injection, for rehearsing outages."""

import logging
import time
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from serve_app.errors import NotFound
from serve_app.http.dependencies import WITHIN_DEADLINE, Services, ServicesDep
from serve_app.http.json_body import JsonRoute, json_response
from serve_app.http.openapi import body_error_responses, error_responses
from serve_app.stores.fault_store import FaultStore
from serve_app.values import Fault, FaultList, FaultMode, FaultTarget, Value

logger = logging.getLogger(__name__)

router = APIRouter(route_class=JsonRoute, tags=["Admin"], dependencies=[WITHIN_DEADLINE])

_OFF = "Faults are off in this service; `faults: {enabled: true}` in its configuration file switches them on"
_IN_FORCE = "The faults that are in force now."


class FaultRequest(Value):
    """The body of `PUT /admin/faults`."""

    target: FaultTarget
    mode: FaultMode = Field(description="Whether calls do not answer, fail, answer late, or answer with garbage.")
    rate: float = Field(default=1, strict=True, ge=0, le=1, description="The share of calls that are hit.")
    for_s: float = Field(
        default=60, strict=True, gt=0, le=3600, description="Seconds after which the fault ends by itself."
    )
    delay_s: float = Field(
        default=2, strict=True, ge=0, le=3600, description="How much later a `slow` call is answered."
    )

    def starting_at(self, now: float) -> Fault:
        """The fault that begins at `now`, in Unix time."""
        return Fault(target=self.target, mode=self.mode, rate=self.rate, delay_s=self.delay_s, until=now + self.for_s)


class FaultQuery(Value):
    """The query of `DELETE /admin/faults`."""

    target: FaultTarget | None = Field(default=None, description="The fault of this target; without it, all.")


def _fault_store(services: Services) -> FaultStore:
    if services.faults is None:
        raise NotFound(_OFF)
    return services.faults


async def _faults_in_force(store: FaultStore) -> Response:
    return json_response(FaultList(faults=await store.list_faults()))


@router.get(
    "/admin/faults",
    summary="List the faults in force",
    response_model=FaultList,
    response_description=_IN_FORCE,
    responses=error_responses(404),
)
async def list_faults(services: ServicesDep) -> Response:
    """List the injected faults; 404 where the configuration does not allow any."""
    return await _faults_in_force(_fault_store(services))


@router.put(
    "/admin/faults",
    summary="Inject a fault",
    response_model=FaultList,
    response_description=_IN_FORCE,
    responses=body_error_responses(404),
)
async def set_fault(services: ServicesDep, body: FaultRequest) -> Response:
    """Set a fault; it replaces the one of the same target.

    Within one second it affects all turns that begin. Turns that have begun are not affected.
    """
    store = _fault_store(services)
    await store.put(body.starting_at(time.time()))
    logger.warning("fault_set", extra=body.model_dump())
    return await _faults_in_force(store)


@router.delete(
    "/admin/faults",
    summary="End faults",
    response_model=FaultList,
    response_description=_IN_FORCE,
    responses=error_responses(404),
)
async def clear_faults(services: ServicesDep, query: Annotated[FaultQuery, Query()]) -> Response:
    """End the fault of a target, or all. Turns that have begun keep theirs."""
    store = _fault_store(services)
    await store.clear(query.target)
    logger.warning("fault_cleared", extra={"target": query.target or "all"})
    return await _faults_in_force(store)
