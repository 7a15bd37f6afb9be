"""The other deployments as ports, and the translation of Ray's errors.

Each class is a port over a deployment's handle. A call has a deadline of its own, because Ray has none; a call that
runs out of time is cancelled on the other side, too.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

from serve_app.deployments.ray_adapter import use_trace_context
from serve_app.errors import (
    AgentUnavailable,
    DeadlineExceeded,
    Internal,
    Overloaded,
    RetrieverUnavailable,
    ServeAppError,
    ToolUnavailable,
    Unavailable,
)
from serve_app.resilience.deadline import local_deadline, remaining_s
from serve_app.tools.grouped_tools import GroupedTools, ToolGroup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping

    from ray.serve.handle import DeploymentHandle

    from serve_app.config import ToolsSettings
    from serve_app.values import (
        ChatRequest,
        Context,
        DependencyCheck,
        Document,
        DocumentList,
        DocumentSummary,
        IdempotencyKey,
        IndexingResult,
        RunEvent,
        SearchResult,
        Session,
        SessionSizes,
        ToolRequest,
        ToolResult,
        ToolSpec,
    )

GRACE_S = 1.0
"""Past the deadline: the other side keeps it too, and its own error says more."""
CALL_TIMEOUT_S = 2.0
"""For calls that belong to no request: specs and checks."""

GONE = (
    RayActorError,
    ActorUnavailableError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    TaskCancelledError,
)


class RemoteAgent:
    """The Agent deployment; implements `ports.Agent`."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = _with_pickle(handle)
        self._streaming = self._handle.options(stream=True)

    async def turn(self, context: Context, request: ChatRequest, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        if not request.stream:  # one reply costs a fraction of a stream of one item
            last = await _call(self._handle.last_event, AgentUnavailable, context, request, after)
            if last:
                yield last
            return
        follow, give_up_at = _start_call(self._streaming.turn, context, request, after), local_deadline(context)
        try:
            while True:
                with _translate_ray_errors(AgentUnavailable):
                    async with asyncio.timeout(remaining_s(give_up_at) + GRACE_S):
                        event = await anext(follow, None)
                if event is None:
                    return
                yield event
        except (DeadlineExceeded, asyncio.CancelledError, GeneratorExit):
            follow.cancel()
            raise

    async def start(self, context: Context, request: ChatRequest) -> None:
        await _call(self._handle.start, AgentUnavailable, context, request)

    async def sizes(self, context: Context, limit: int) -> SessionSizes:
        return await _call(self._handle.sizes, AgentUnavailable, context, limit)

    async def session(self, context: Context, limit: int) -> Session:
        return await _call(self._handle.session, AgentUnavailable, context, limit)

    async def forget(self, context: Context) -> None:
        await _call(self._handle.forget, AgentUnavailable, context)

    async def checks(self) -> list[DependencyCheck]:
        return await _await_reply(self._handle.checks.remote(), None, AgentUnavailable)


class RemoteRetriever:
    """The Retriever deployment; implements `ports.Retriever`."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = _with_pickle(handle)

    async def search(self, context: Context, query: str) -> SearchResult:
        return await _call(self._handle.search, RetrieverUnavailable, context, query)

    async def add(self, context: Context, documents: list[Document]) -> list[IndexingResult]:
        return await _call(self._handle.add, RetrieverUnavailable, context, documents)

    async def documents(self, context: Context, offset: int, limit: int) -> DocumentList:
        return await _call(self._handle.documents, RetrieverUnavailable, context, offset, limit)

    async def remove(self, context: Context, document_id: str) -> DocumentSummary:
        return await _call(self._handle.remove, RetrieverUnavailable, context, document_id)

    async def checks(self) -> list[DependencyCheck]:
        return await _await_reply(self._handle.checks.remote(), None, RetrieverUnavailable)


class RemoteTools:
    """A Tools deployment; implements `ports.Tools`."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = _with_pickle(handle)

    async def specs(self) -> list[ToolSpec]:
        return await _await_reply(self._handle.specs.remote(), None, ToolUnavailable)

    async def call(self, context: Context, request: ToolRequest, key: IdempotencyKey) -> ToolResult:
        return await _call(self._handle.call, ToolUnavailable, context, request, key)

    async def checks(self) -> list[DependencyCheck]:
        return await _await_reply(self._handle.checks.remote(), None, ToolUnavailable)


def create_remote_tools(settings: ToolsSettings, handles: Mapping[str | None, DeploymentHandle]) -> GroupedTools:
    """Return all tools, each from the deployment of its group; None is no group."""
    owned = {group: {name: settings.by_name[name] for name in settings.names_of_group(group)} for group in handles}
    return GroupedTools(*(ToolGroup(RemoteTools(handle), owned[group]) for group, handle in handles.items()))


def _with_pickle(handle: DeploymentHandle) -> DeploymentHandle:
    """Return the handle with the plain pickle for calls over gRPC.

    Serve's default, cloudpickle, takes four times as long for our values.
    """
    return handle.options(request_serialization="pickle", response_serialization="pickle")


def _start_call(method: Any, context: Context, *arguments: Any) -> Any:
    """Start the call, in the trace of its context."""
    with use_trace_context(context.traceparent):
        return method.remote(context, *arguments)


async def _call(method: Any, gone: type[Unavailable], context: Context, *arguments: Any) -> Any:
    """Call a method of another deployment and wait for its reply."""
    return await _await_reply(_start_call(method, context, *arguments), context, gone)


async def _await_reply(response: Any, context: Context | None, gone: type[Unavailable]) -> Any:
    limit_s = CALL_TIMEOUT_S if context is None else remaining_s(local_deadline(context)) + GRACE_S
    try:
        with _translate_ray_errors(gone):
            async with asyncio.timeout(limit_s):
                return await response
    except DeadlineExceeded:
        response.cancel()
        if context is None:
            raise gone(f"No answer within {CALL_TIMEOUT_S:.0f} seconds") from None
        raise
    except asyncio.CancelledError:
        response.cancel()
        raise


@contextmanager
def _translate_ray_errors(gone: type[Unavailable]) -> Iterator[None]:
    """Raise Ray's errors in the block as ours, as `gone` if the replica is."""
    try:
        yield
    except ServeAppError as error:
        raise _unwrap(error) from None
    except TimeoutError as error:
        if isinstance(error, RayTaskError):
            raise Internal(f"{type(error.cause).__name__} on the other side") from error
        raise DeadlineExceeded("The request's time ran out") from None
    except BackPressureError as error:
        raise Overloaded("Too many requests wait", error.retry_after_s, "backpressure") from None
    except GONE as error:
        raise gone(f"The other deployment is not available ({type(error).__name__})") from error
    except Exception as error:  # over gRPC a fault of the other side comes without Ray's wrapper
        raise Internal(f"{type(error).__name__}: {error}") from error


def _unwrap(error: ServeAppError) -> ServeAppError:
    """Remove Ray's wrapper: its text is a traceback, and its class attributes hide the instance's."""
    return error.cause if isinstance(error, RayTaskError) else error
