"""How does a run begin that nobody waits for?"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from serve_app.errors import DeadlineExceeded, Overloaded, Unavailable
from serve_app.http.preferences import RESPOND_ASYNC
from serve_app.http.request_context import answer_timeout_s, time_limit
from serve_app.http.responses import json_response

if TYPE_CHECKING:
    from starlette.responses import Response

    from serve_app.http.services import Services
    from serve_app.values import ChatRequest, Context

log = logging.getLogger(__name__)

START_S = 2.0
"""For a replica to take the run; it is registered, so that one takes it by itself later."""


async def begun(services: Services, context: Context, body: ChatRequest, key: str | None) -> Response:
    """202 with the run, which goes on without the client."""
    async with time_limit(answer_timeout_s(context)):
        claim = await services.runs.claim(context, body, key)
        context = context.model_copy(update={"run_id": claim.run_id})
        log.debug("turn_asked", extra={**context.ids, "background": True, "joined": not claim.fresh})
        if claim.fresh:
            await _start(services, context, body, key)
        run = await services.runs.run(context, claim.run_id)
    response = json_response(run, HTTPStatus.ACCEPTED)
    response.headers["Location"] = f"/agent/runs/{claim.run_id}"
    response.headers["Preference-Applied"] = RESPOND_ASYNC
    return response


async def _start(services: Services, context: Context, body: ChatRequest, key: str | None) -> None:
    """Have an agent begin the run.

    Raises:
        Overloaded: there are too many already, and the run is withdrawn: what is refused must not pile up.
    """
    try:
        async with time_limit(START_S):
            await services.agent.start(context, body)
    except Overloaded as error:
        if await services.runs.withdraw(context, key, error):
            raise
    except (Unavailable, DeadlineExceeded) as error:
        log.warning("run_waits_for_replica", extra={**context.ids, "error": error.message})
