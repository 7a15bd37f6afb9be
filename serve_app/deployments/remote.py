"""How is another deployment asked, and how do Ray's failures become ours?

Each class is a port whose other end is a handle. A call has a deadline of its own, because Ray gives none; one that is
given up is cancelled on the other side too.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

from serve_app.deployments.serve_spans import use_trace_context
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
"""Past the deadline: the other side keeps it too, and its own word on it is the better one."""
ASK_S = 2.0
"""For questions that belong to no request: specs and checks."""

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
        self._handle = handle
        self._streaming = handle.options(stream=True)

    async def turn(self, context: Context, request: ChatRequest, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        follow, given_up_at = _called(self._streaming.turn, context, request, after), local_deadline(context)
        try:
            while True:
                with _translated(AgentUnavailable):
                    async with asyncio.timeout(remaining_s(given_up_at) + GRACE_S):
                        event = await anext(follow, None)
                if event is None:
                    return
                yield event
        except (DeadlineExceeded, asyncio.CancelledError, GeneratorExit):
            follow.cancel()
            raise

    async def start(self, context: Context, request: ChatRequest) -> None:
        await _ask(_called(self._handle.start, context, request), context, AgentUnavailable)

    async def sizes(self, context: Context, limit: int) -> SessionSizes:
        return await _ask(_called(self._handle.sizes, context, limit), context, AgentUnavailable)

    async def session(self, context: Context, limit: int) -> Session:
        return await _ask(_called(self._handle.session, context, limit), context, AgentUnavailable)

    async def forget(self, context: Context) -> None:
        await _ask(_called(self._handle.forget, context), context, AgentUnavailable)

    async def checks(self) -> list[DependencyCheck]:
        return await _ask(self._handle.checks.remote(), None, AgentUnavailable)


class RemoteRetriever:
    """The Retriever deployment; implements `ports.Retriever`."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def search(self, context: Context, query: str) -> SearchResult:
        return await _ask(_called(self._handle.search, context, query), context, RetrieverUnavailable)

    async def add(self, context: Context, documents: list[Document]) -> list[IndexingResult]:
        return await _ask(_called(self._handle.add, context, documents), context, RetrieverUnavailable)

    async def documents(self, context: Context, offset: int, limit: int) -> DocumentList:
        return await _ask(_called(self._handle.documents, context, offset, limit), context, RetrieverUnavailable)

    async def remove(self, context: Context, document_id: str) -> DocumentSummary:
        return await _ask(_called(self._handle.remove, context, document_id), context, RetrieverUnavailable)

    async def checks(self) -> list[DependencyCheck]:
        return await _ask(self._handle.checks.remote(), None, RetrieverUnavailable)


class RemoteTools:
    """A Tools deployment; implements `ports.Tools`."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def specs(self) -> list[ToolSpec]:
        return await _ask(self._handle.specs.remote(), None, ToolUnavailable)

    async def call(self, context: Context, request: ToolRequest, key: IdempotencyKey) -> ToolResult:
        return await _ask(_called(self._handle.call, context, request, key), context, ToolUnavailable)

    async def checks(self) -> list[DependencyCheck]:
        return await _ask(self._handle.checks.remote(), None, ToolUnavailable)


def create_remote_tools(settings: ToolsSettings, handles: Mapping[str | None, DeploymentHandle]) -> GroupedTools:
    """All tools, each of its group's deployment; under None is the deployment of those in no group."""
    owned = {group: {name: settings.by_name[name] for name in settings.names_of_group(group)} for group in handles}
    return GroupedTools(*(ToolGroup(RemoteTools(handle), owned[group]) for group, handle in handles.items()))


def _called(method: Any, context: Context, *arguments: Any) -> Any:
    """The call under way, in the trace of its context."""
    with use_trace_context(context.traceparent):
        return method.remote(context, *arguments)


async def _ask(response: Any, context: Context | None, gone: type[Unavailable]) -> Any:
    limit_s = ASK_S if context is None else remaining_s(local_deadline(context)) + GRACE_S
    try:
        with _translated(gone):
            async with asyncio.timeout(limit_s):
                return await response
    except DeadlineExceeded:
        response.cancel()
        if context is None:
            raise gone(f"No answer within {ASK_S:.0f} seconds") from None
        raise
    except asyncio.CancelledError:
        response.cancel()
        raise


@contextmanager
def _translated(gone: type[Unavailable]) -> Iterator[None]:
    """Ray's failures, raised as ours; `gone` is what the death of the other side means to the caller."""
    try:
        yield
    except ServeAppError as error:
        raise _cause(error) from None
    except TimeoutError as error:
        if isinstance(error, RayTaskError):
            raise Internal(f"{type(error.cause).__name__} on the other side") from error
        raise DeadlineExceeded("The request's time ran out") from None
    except BackPressureError as error:
        raise Overloaded("Too many requests wait", retry_after_s=error.retry_after_s) from None
    except GONE as error:
        raise gone(f"The service's other part went away ({type(error).__name__})") from error
    except Exception as error:  # over gRPC a fault of the other side comes without Ray's wrapper
        raise Internal(f"{type(error).__name__}: {error}") from error


def _cause(error: ServeAppError) -> ServeAppError:
    """Without Ray's wrapper, whose text is a traceback and whose class attributes hide the instance's."""
    return error.cause if isinstance(error, RayTaskError) else error
