"""Which run is a request, when it may have been sent before?"""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import Depends, Header
from starlette.requests import Request

from serve_app.errors import Internal, Overloaded, StoreUnavailable
from serve_app.http.request_context import require_single_header
from serve_app.http.services import Services
from serve_app.values import ChatRequest, Claim, Context, RunEvent

log = logging.getLogger(__name__)

HEADER = "Idempotency-Key"

_KeyHeader = Annotated[
    str,
    Header(
        alias=HEADER,
        default_factory=str,  # the documentation would offer null, which no header can be, for None
        min_length=1,
        max_length=255,
        pattern="^[!-~]+$",
        description="A name of your own for this request. Sent again with the same body within a day, it gives the "
        "same run and the same answer, also while the first one still goes on; with another body it is refused.",
    ),
]


def _key(request: Request, key: _KeyHeader) -> str | None:
    require_single_header(request, HEADER)
    return key or None


Key = Annotated[str | None, Depends(_key)]


async def events_of(
    services: Services, context: Context, body: ChatRequest, key: str | None
) -> AsyncGenerator[RunEvent, None]:
    """The run's events to its last one: from the agent where it begins here, else from its log.

    Without a key it is always a new run, which the agent registers.

    Raises:
        KeyReused: the key came with another body.
        Overloaded: the agents refused the run, which leaves nothing behind.
        Internal: there is no last one.
    """
    context, claim = await _claimed(services, context, body, key)
    log.debug("turn_asked", extra={**context.ids, "stream": body.stream, "joined": not claim.fresh})
    source = _begun(services, context, body, key) if claim.fresh else services.runs.events(context, claim.run_id)
    async with aclosing(source) as events:
        async for event in events:
            yield event
            if event.last:
                return
    raise Internal("The run ended without its last event")


async def _begun(
    services: Services, context: Context, body: ChatRequest, key: str | None
) -> AsyncGenerator[RunEvent, None]:
    """The events of a run that begins; one that the agents refuse is withdrawn, lest they run it when nobody asks."""
    try:
        async with aclosing(services.agent.turn(context, body)) as events:
            async for event in events:
                yield event
    except Overloaded as error:
        if not key or await services.runs.withdraw(context, key, error):
            raise
    else:
        return
    async with aclosing(services.runs.events(context, context.run_id)) as events:  # an agent has adopted it meanwhile
        async for event in events:
            yield event


async def _claimed(services: Services, context: Context, body: ChatRequest, key: str | None) -> tuple[Context, Claim]:
    """The run that the request is; while Redis is away it is one of its own, in which tools only look."""
    if not key:
        return context, Claim(run_id=context.run_id, fresh=True)
    try:
        claim = await services.runs.claim(context, body, key)
    except StoreUnavailable as error:
        log.warning("run_begins_without_key", extra={**context.ids, "error": error.message})
        return context.model_copy(update={"effects": False}), Claim(run_id=context.run_id, fresh=True)
    return context.model_copy(update={"run_id": claim.run_id}), claim
