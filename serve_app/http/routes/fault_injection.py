"""How does an operator have something go wrong on purpose, to see what the service makes of it?"""

import logging
import time
from typing import Annotated

from fastapi import FastAPI, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from serve_app.errors import NotFound
from serve_app.http.request_context import RequestContexts, answer_timeout_s, time_limit
from serve_app.http.responses import body_refusals, json_response, refusals
from serve_app.http.services import Services
from serve_app.stores.fault_store import FaultStore
from serve_app.values import Context, Fault, FaultList, FaultMode, FaultTarget, Value

log = logging.getLogger(__name__)

_PATH = "/admin/faults"
_OFF = "Faults are off in this service; `faults: {enabled: true}` in its configuration file switches them on"
_TOLD = "The faults that are in force now."


class Rehearsal(Value):
    """The body of `PUT /admin/faults`."""

    target: FaultTarget
    mode: FaultMode = Field(description="Whether calls do not answer, fail, answer late, or answer with garbage.")
    rate: float = Field(default=1, ge=0, le=1, description="The share of calls that are hit.")
    for_s: float = Field(default=60, gt=0, le=3600, description="Seconds after which the fault ends by itself.")
    delay_s: float = Field(default=2, ge=0, le=3600, description="How much later a `slow` call is answered.")

    def begun(self, now: float) -> Fault:
        """The fault, from `now` on."""
        return Fault(target=self.target, mode=self.mode, rate=self.rate, delay_s=self.delay_s, until=now + self.for_s)


class Which(Value):
    """Which faults are meant."""

    target: FaultTarget | None = Field(default=None, description="The fault of this target; without it, all.")


async def rehearsed(context: Context, faults: FaultStore | None) -> Context:
    """The context with the faults in force, which every hop obeys."""
    if faults is None:
        return context
    in_force = await faults.active_faults()
    return context.model_copy(update={"faults": in_force}) if in_force else context


def add_rehearsal(api: FastAPI, services: Services, contexts: RequestContexts) -> None:
    """`GET`, `PUT` and `DELETE /admin/faults`."""

    @api.get(
        _PATH,
        tags=["Admin"],
        summary="List the faults in force",
        response_model=FaultList,
        response_description=_TOLD,
        responses=refusals(404),
    )
    async def listed(request: Request) -> Response:
        """What goes wrong on purpose now; 404 where the configuration does not allow it."""
        async with time_limit(answer_timeout_s(contexts.of(request))):
            return await _told(_allowed(services))

    @api.put(
        _PATH,
        tags=["Admin"],
        summary="Have calls go wrong",
        response_model=FaultList,
        response_description=_TOLD,
        responses=body_refusals(404),
    )
    async def put(request: Request, rehearsal: Rehearsal) -> Response:
        """Set a fault, in place of the one of the same target. It hits turns that begin a second later or earlier."""
        async with time_limit(answer_timeout_s(contexts.of(request))):
            faults = _allowed(services)
            await faults.put(rehearsal.begun(time.time()))
            log.warning("fault_set", extra=rehearsal.model_dump())
            return await _told(faults)

    @api.delete(
        _PATH,
        tags=["Admin"],
        summary="End faults",
        response_model=FaultList,
        response_description=_TOLD,
        responses=refusals(404),
    )
    async def clear(request: Request, which: Annotated[Which, Query()]) -> Response:
        """End the fault of a target, or all. Turns that have begun keep theirs."""
        async with time_limit(answer_timeout_s(contexts.of(request))):
            faults = _allowed(services)
            await faults.clear(which.target)
            log.warning("fault_cleared", extra={"target": which.target or "all"})
            return await _told(faults)


def _allowed(services: Services) -> FaultStore:
    if services.faults is None:
        raise NotFound(_OFF)
    return services.faults


async def _told(faults: FaultStore) -> Response:
    return json_response(FaultList(faults=await faults.list_faults()))
