"""Tools: their specification, their calls and the results."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from serve_app.values.sanitize import sanitize_text, truncate
from serve_app.values.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME_CHARACTERS = 64
KNOWLEDGE_SEARCH = "knowledge_search"
"""The name by which the model calls the retriever; no tool may have it."""

Effect = Literal["pure", "idempotent", "effect"]
"""What a second call of a tool does: nothing (`pure`), nothing under the same idempotency key (`idempotent`), or the
effect once more (`effect`)."""

CallStatus = Literal["ok", "error", "timeout", "standby", "unknown", "refused"]
"""How a tool call ended. `error`: the tool failed or, with 0 attempts, an argument was wrong. `standby`: the standby
answered. `unknown`: an effect may or may not have happened. `refused`: the service did not run the tool."""


class IdempotencyKey(str):
    """The name of one tool call.

    A repetition of the call has the same key, another call has another key. An `idempotent` tool
    receives it in a keyword-only parameter of this type.
    """

    __slots__ = ()


def describe_unknown_outcome(call: str) -> str:
    """Return what the model reads if the outcome of `call` is not known."""
    return f"error: the outcome of {call} is unknown; it may have happened, do not repeat it"


NO_RESULT = describe_unknown_outcome("this call")
"""The content of a conversation's tool message if the call has no result."""

Sensitive: Any = Field(json_schema_extra={"writeOnly": True})
"""Marks a sensitive argument, as in `Annotated[str, Sensitive]`: logs, traces and error bodies never contain its value.
A tool with a JSON schema of its own writes `writeOnly: true` in the schema instead."""


class ToolRequest(Value):
    """A tool call that the model requests.

    `id` comes from the model. It is unique only within one step of the turn.
    """

    event: ClassVar[str] = "tool_call"
    id: str
    name: str
    arguments: dict[str, Any]


class ToolCall(Value):
    """A finished tool call, as clients see it."""

    event: ClassVar[str] = "tool_result"
    name: str
    arguments: dict[str, Any]
    status: CallStatus
    attempts: int
    elapsed_ms: float


class ToolSpec(Value):
    """The description of a tool for a model, and the limits of its calls."""

    name: str
    description: str
    parameters: dict[str, Any]
    """JSON schema of the arguments object."""
    timeout_s: float
    attempts: int
    effect: Effect
    standby_s: float | None = None
    """The time limit of the tool's standby, if it has one."""
    ready: bool = True
    """False if a configured tool is not available now: models do not see it, and answers are made without it."""

    @property
    def sensitive(self) -> frozenset[str]:
        """The names of the sensitive arguments."""
        properties = self.parameters.get("properties", {})
        return frozenset(name for name, each in properties.items() if isinstance(each, dict) and each.get("writeOnly"))

    def sensitive_values(self, arguments: dict[str, Any]) -> list[Any]:
        """Return the values of the sensitive arguments among `arguments`."""
        return [value for name, value in arguments.items() if name in self.sensitive]


class ToolResult(Value):
    """The result of a tool call. The model reads `content`, whatever the status."""

    content: str
    status: CallStatus
    attempts: int
    """The number of calls, including those of the standby."""
    elapsed_ms: float
    by_standby: int = 0
    """The number of calls that went to the standby, successful or not."""

    @property
    def retries(self) -> int:
        """The number of calls after the first one, without those of the standby."""
        return max(0, self.attempts - self.by_standby - 1)

    def within(self, limit: int) -> ToolResult:
        """Return the result with valid content of at most `limit` characters."""
        content = truncate(sanitize_text(self.content), limit)
        return self if content == self.content else self.model_copy(update={"content": content})

    @classmethod
    def no_such_tool(cls, name: str, names: Iterable[str]) -> ToolResult:
        """Return the result of calling a tool that does not exist."""
        wrong, known = truncate(sanitize_text(name), 100), truncate(", ".join(names), 4_000)
        return cls.not_run(f"there is no tool {wrong}; the tools are: {known}")

    @classmethod
    def not_run(cls, reason: str) -> ToolResult:
        """Return the result of a wrong call, which the model can correct."""
        return cls(content=f"error: {reason}", status="error", attempts=0, elapsed_ms=0)

    @classmethod
    def refused(cls, name: str, reason: str) -> ToolResult:
        """Return the result of a refused call, which the model cannot correct."""
        return cls(content=f"error: {name} was not called: {reason}", status="refused", attempts=0, elapsed_ms=0)

    @classmethod
    def unknown(cls, name: str, attempts: int, elapsed_ms: float) -> ToolResult:
        """Return the result of a call whose effect may or may not have happened."""
        return cls(content=describe_unknown_outcome(name), status="unknown", attempts=attempts, elapsed_ms=elapsed_ms)

    @classmethod
    def timed_out(cls, name: str, attempts: int, elapsed_ms: float) -> ToolResult:
        """Return the result of a call that exceeded its time limit."""
        content = f"error: {name} did not answer in time"
        return cls(content=content, status="timeout", attempts=attempts, elapsed_ms=elapsed_ms)


def make_tool_name(name: str) -> str:
    """Return `name` in the form that every provider accepts.

    The form is 1 to 64 characters of `A-Za-z0-9_-`, beginning with a letter or `_`. A valid name does not change. A
    name that loses letters, or that is too long, gets a hash, so that two such names stay different.
    """
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", name):
        return name
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")
    if not name.strip():
        return "unknown_tool"
    lost = any(ord(letter) > 127 and letter.isalnum() for letter in name)  # noqa: PLR2004 - the end of ASCII
    if lost or not plain or len(plain) >= NAME_CHARACTERS:
        known = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        plain = f"{(plain or 'tool')[: NAME_CHARACTERS - 10]}_{known}"
    return plain if plain[0].isalpha() else f"_{plain}"
