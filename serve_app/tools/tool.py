"""The interface of a tool: its protocol, reply and retryable errors."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import httpx

from serve_app.values import ToolSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from serve_app.config import RetryOn, ToolSettings
    from serve_app.values import IdempotencyKey

TOO_MANY_REQUESTS, SERVER_ERROR = 429, 500


@dataclass(frozen=True, slots=True)
class ToolReply:
    """A tool's reply for the model; `ok` is false for the tool's own error."""

    content: str
    ok: bool = True


class WrongArguments(Exception):
    """The tool does not take the model's arguments; the text tells the model why."""


class Tool(Protocol):
    """One tool: a function, an HTTP endpoint or a tool of an MCP server."""

    @property
    def spec(self) -> ToolSpec:
        """What the model reads of the tool; not `ready` while that is unknown."""
        ...

    def start(self) -> None:
        """Start connecting in the background; returns at once."""
        ...

    def read_arguments(self, arguments: dict[str, Any]) -> Mapping[str, Any]:
        """The model's arguments, validated and converted.

        Raises:
            WrongArguments: they do not fit the tool's schema.
        """
        ...

    async def call(self, arguments: Mapping[str, Any], key: IdempotencyKey) -> ToolReply:
        """Make one call, without a time-out of its own; raises whatever the tool raises."""
        ...

    async def close(self) -> None:
        """Close connections and end child processes."""
        ...


@runtime_checkable
class ToolServer(Protocol):
    """A server whose tools are known once it has listed them."""

    @property
    def available(self) -> bool:
        """Whether the server is connected and has tools."""
        ...

    @property
    def tools(self) -> Mapping[str, Tool]:
        """Its tools, by the name that the model uses."""
        ...

    def settings_of(self, name: str) -> ToolSettings:
        """The settings of one of its tools."""
        ...


def spec_of(name: str, settings: ToolSettings, description: str, parameters: dict[str, Any]) -> ToolSpec:
    """The specification of a tool with these settings."""
    return ToolSpec(
        name=name,
        description=description,
        parameters=parameters,
        timeout_s=settings.timeout_s,
        attempts=settings.attempts,
        effect=settings.effect,
    )


def unavailable_spec(name: str, settings: ToolSettings) -> ToolSpec:
    """The specification of a tool that cannot be called now: its description is unknown."""
    return spec_of(name, settings, "", {}).model_copy(update={"ready": False})


class RetryableToolError(Exception):
    """A failure that may pass by itself.

    It is retried where the tool's `retry_on` names its kind, counts against the circuit breaker, and sends the call
    to the standby. Any other failure is the tool's own reply. `problem` completes the sentence "TOOL ...".
    """

    problem: ClassVar[str] = "failed"


class ToolTimeout(RetryableToolError):
    """The call took longer than its time-out."""

    problem = "did not answer in time"


class ToolUnreachable(RetryableToolError):
    """No connection was made, so the call surely did not happen."""

    problem = "cannot be reached"


class ConnectionLost(RetryableToolError):
    """The connection broke; whether the call happened is unknown."""

    problem = "broke the connection"


class EffectInterrupted(RetryableToolError):
    """The code of a tool with an effect crashed; whether the effect happened is unknown."""

    problem = "crashed"


class ToolServerError(RetryableToolError):
    """The server answered 429 or 5xx."""

    problem = "has a problem of its own"


_ERRORS_OF_KIND: dict[RetryOn, tuple[type[RetryableToolError], ...]] = {
    "timeout": (ToolTimeout,),
    "connection": (ToolUnreachable, ConnectionLost),
    "server_error": (ToolServerError,),
}


def errors_of_kinds(kinds: Iterable[RetryOn]) -> tuple[type[RetryableToolError], ...]:
    """The error classes that the setting `retry_on` names."""
    return tuple(error for kind in kinds for error in _ERRORS_OF_KIND[kind])


def is_server_error(status: int) -> bool:
    """Whether an HTTP status says that the server is overloaded or broken."""
    return status == TOO_MANY_REQUESTS or status >= SERVER_ERROR


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise what may pass by itself as `RetryableToolError`; let every other exception through."""
    try:
        yield
    except (TimeoutError, httpx.TimeoutException) as error:
        raise ToolTimeout from error
    except (ConnectionRefusedError, httpx.ConnectError) as error:
        raise ToolUnreachable from error
    except (ConnectionError, httpx.NetworkError, httpx.ProtocolError) as error:
        raise ConnectionLost from error
    except httpx.HTTPStatusError as error:
        if is_server_error(error.response.status_code):
            raise ToolServerError from error
        raise
