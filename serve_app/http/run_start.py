"""Starts the run of a turn, at most once for each `Idempotency-Key`, and follows it."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import Depends, Header
from starlette.requests import Request

from serve_app.errors import DeadlineExceeded, Internal, Overloaded, StoreUnavailable, Unavailable
from serve_app.http.dependencies import Services
from serve_app.http.request_context import answer_timeout_s, require_single_header, time_limit
from serve_app.stores.fault_store import FaultStore
from serve_app.values import ChatRequest, Claim, Context, RunEvent, RunRecord

logger = logging.getLogger(__name__)

IDEMPOTENCY_KEY = "Idempotency-Key"
START_TIMEOUT_S = 2.0
"""For an agent to take a run in the background. The run is registered: later an agent takes it by itself."""

_KeyHeader = Annotated[
    str,
    Header(
        alias=IDEMPOTENCY_KEY,
        default_factory=str,  # the documentation would offer null, which no header can be, for None
        min_length=1,
        max_length=255,
        pattern="^[!-~]+$",
        description="A name of your own for this request. Sent again with the same body within a day, it gives the "
        "same run and the same answer, also while the first one still goes on; with another body it is refused.",
    ),
]


async def _idempotency_key(request: Request, key: _KeyHeader) -> str | None:
    require_single_header(request, IDEMPOTENCY_KEY)
    return key or None


IdempotencyKeyHeader = Annotated[str | None, Depends(_idempotency_key)]


async def add_injected_faults(context: Context, store: FaultStore | None) -> Context:
    """The context with the injected faults in force, which every process of the turn obeys."""
    faults = await store.active_faults() if store else ()
    return context.model_copy(update={"faults": faults}) if faults else context


async def run_turn(
    services: Services, context: Context, body: ChatRequest, key: str | None
) -> AsyncGenerator[RunEvent, None]:
    """The run's events: from the agent for a new run, else from its log.

    The last event is the run's last. Without a key it is always a new run, which the agent registers.

    Raises:
        KeyReused: the key came with another body.
        Overloaded: the agents refused the run, which leaves nothing behind.
        Internal: the events ended without a last one.
    """
    context, claim = await _claim(services, context, body, key)
    _link_request(services, context)
    logger.debug("turn_received", extra={**context.ids, "stream": body.stream, "joined": not claim.fresh})
    source = _start(services, context, body, key) if claim.fresh else services.runs.events(context, claim.run_id)
    async with aclosing(source) as events:
        async for event in events:
            yield event
            if event.last:
                return
    raise Internal("The run ended without its last event")


async def run_in_background(services: Services, context: Context, body: ChatRequest, key: str | None) -> RunRecord:
    """Start the run, which goes on without the client; its state now.

    Raises:
        KeyReused: the key came with another body.
        Overloaded: the agents refused the run, which leaves nothing behind.
        StoreUnavailable: the run cannot be registered.
    """
    async with time_limit(answer_timeout_s(context)):
        claim = await services.runs.claim(context, body, key)
        context = context.model_copy(update={"run_id": claim.run_id})
        _link_request(services, context)
        logger.debug("turn_received", extra={**context.ids, "background": True, "joined": not claim.fresh})
        if claim.fresh:
            await _start_in_background(services, context, body, key)
        return await services.runs.run(context, claim.run_id)


def _link_request(services: Services, context: Context) -> None:
    """Store which run the request started or joined, for the operator."""
    if services.request_logs:
        services.request_logs.link_run(context)


async def _claim(services: Services, context: Context, body: ChatRequest, key: str | None) -> tuple[Context, Claim]:
    """Find or register the run of the request.

    While Redis is away it is always a new run, whose tools must have no effects.
    """
    if not key:
        return context, Claim(run_id=context.run_id, fresh=True)
    try:
        claim = await services.runs.claim(context, body, key)
    except StoreUnavailable as error:
        logger.warning("idempotency_key_not_stored", extra={**context.ids, "error": error.message})
        return context.model_copy(update={"effects": False}), Claim(run_id=context.run_id, fresh=True)
    return context.model_copy(update={"run_id": claim.run_id}), claim


async def _start(
    services: Services, context: Context, body: ChatRequest, key: str | None
) -> AsyncGenerator[RunEvent, None]:
    """The events of a new run.

    A run that the agents refuse is withdrawn, so that none of them runs it later.
    """
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


async def _start_in_background(services: Services, context: Context, body: ChatRequest, key: str | None) -> None:
    """Have an agent take the run.

    Raises:
        Overloaded: there are too many runs, and this one is withdrawn: refused runs must not pile up.
    """
    try:
        async with time_limit(START_TIMEOUT_S):
            await services.agent.start(context, body)
    except Overloaded as error:
        if await services.runs.withdraw(context, key, error):
            raise
    except (Unavailable, DeadlineExceeded) as error:
        logger.warning("run_start_delayed", extra={**context.ids, "error": error.message})
