"""What a route takes as parameters: the services, and the request's context within its deadline."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Depends, Path
from starlette.requests import Request

from serve_app.http.admission import AdmissionController
from serve_app.http.auth import Authenticator
from serve_app.http.request_context import answer_timeout_s, make_context, time_limit
from serve_app.observability.metrics import NULL_METRICS
from serve_app.observability.metrics_page import MetricsPage
from serve_app.ports import Agent, Metrics, Retriever, Tools
from serve_app.runs.event_log import RunEventLog
from serve_app.runs.feedback import FeedbackStore
from serve_app.stores.api_keys import ApiKeyStore
from serve_app.stores.fault_store import FaultStore
from serve_app.stores.log_store import RequestLogStore, RunLogStore
from serve_app.stores.rate_limiter import RateLimiter
from serve_app.values import Context, SessionId


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes and the middlewares call: the other deployments and the stores."""

    agent: Agent
    runs: RunEventLog
    retriever: Retriever
    tools: Tools
    run_logs: RunLogStore
    feedback: FeedbackStore
    metrics_page: MetricsPage
    keys: ApiKeyStore
    authenticator: Authenticator | None = None
    """None where the service needs no keys."""
    faults: FaultStore | None = None
    """None where fault injection is off."""
    limiter: RateLimiter | None = None
    """None where there are no rate limits."""
    request_logs: RequestLogStore | None = None
    """None where nothing is kept of requests by their id."""
    admission: AdmissionController | None = None
    """None where all turns are served at once."""
    metrics: Metrics = NULL_METRICS
    model_name: str = ""
    """The configured name of the agent's model."""


# All dependencies are coroutines: FastAPI runs any other function in a thread, which costs far more than these do.


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _new_context(request: Request) -> Callable[..., Context]:
    return partial(make_context, request, request.app.state.turn_timeout_s)


ServicesDep = Annotated[Services, Depends(_services)]
NewContextDep = Annotated[Callable[..., Context], Depends(_new_context)]
"""Makes the request's context, as `make_context` does: for routes whose body says what the context is for."""


async def _context(new_context: NewContextDep) -> AsyncIterator[Context]:
    context = new_context()
    async with time_limit(answer_timeout_s(context)):
        yield context


async def _session_context(
    new_context: NewContextDep, session_id: Annotated[SessionId, Path(description="The conversation's name.")]
) -> AsyncIterator[Context]:
    context = new_context(session_id)
    async with time_limit(answer_timeout_s(context)):
        yield context


async def _run_context(
    new_context: NewContextDep,
    run_id: Annotated[
        str, Path(pattern="^[A-Za-z0-9_-]{1,64}$", description="As the turn's first frame or answer has it.")
    ],
) -> AsyncIterator[Context]:
    context = new_context(run_id=run_id)
    async with time_limit(answer_timeout_s(context)):
        yield context


# With each of the following the route's function is cancelled with `DeadlineExceeded` when the request's time is over.

WITHIN_DEADLINE = Depends(_context, scope="function")
"""For routes that need no context."""
ContextDep = Annotated[Context, Depends(_context, scope="function")]
"""The context of a request for neither a conversation nor a run."""
SessionContextDep = Annotated[Context, Depends(_session_context, scope="function")]
"""The context of a request for the conversation `{session_id}` of the path."""
RunContextDep = Annotated[Context, Depends(_run_context, scope="function")]
"""The context of a request for the run `{run_id}` of the path."""
