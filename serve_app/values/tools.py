"""What is asked of a tool, and what does it say?"""

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

Effect = Literal["pure", "idempotent", "effect"]
"""What a second call of a tool does: nothing new, nothing new under the same key, or the deed once more."""

CallStatus = Literal["ok", "error", "timeout", "standby", "unknown", "refused"]
"""How a tool call ended; `error` is the tool's own failure or, with no attempt made, a wrong argument; `refused` means
that the service would not run it."""


class IdempotencyKey(str):
    """Names one call of a tool: a call that is repeated comes under the same key, another one under another.

    A tool that is `idempotent` takes it as a keyword-only parameter of this type.
    """

    __slots__ = ()


Sensitive: Any = Field(json_schema_extra={"writeOnly": True})
"""Marks an argument, as in `Annotated[str, Sensitive]`: its value stands in no log, trace or error body. A tool whose
JSON schema is not made from a signature says `writeOnly: true`."""


class ToolRequest(Value):
    """What the model asked of a tool; `id` is the model's and unique within one model step only."""

    event: ClassVar[str] = "tool_call"
    id: str
    name: str
    arguments: dict[str, Any]


class ToolCall(Value):
    """One finished tool call, as the client sees it."""

    event: ClassVar[str] = "tool_result"
    name: str
    arguments: dict[str, Any]
    status: CallStatus
    attempts: int
    elapsed_ms: float


class ToolSpec(Value):
    """What a model is told of a tool, and how the tool may be called."""

    name: str
    description: str
    parameters: dict[str, Any]
    """JSON schema of the arguments object."""
    timeout_s: float
    attempts: int
    effect: Effect
    standby_s: float | None = None
    """How long its standby may take, for the tools that have one."""
    ready: bool = True
    """False where the tool is configured, but not there now: no model is told of it, and answers are without it."""

    @property
    def sensitive(self) -> frozenset[str]:
        """The arguments whose values must not leave the service."""
        properties = self.parameters.get("properties", {})
        return frozenset(name for name, each in properties.items() if isinstance(each, dict) and each.get("writeOnly"))

    def sensitive_values(self, arguments: dict[str, Any]) -> list[Any]:
        """The values among `arguments` that must not leave."""
        return [value for name, value in arguments.items() if name in self.sensitive]


class ToolResult(Value):
    """What a tool said: `content` goes to the model whatever the status."""

    content: str
    status: CallStatus
    attempts: int
    """Calls that were made, those of the standby included."""
    elapsed_ms: float
    by_standby: int = 0
    """How many of them the standby was sent, whether or not it helped."""

    @property
    def retries(self) -> int:
        """Tries of the tool beyond its first; a standby's is none."""
        return max(0, self.attempts - self.by_standby - 1)

    def within(self, limit: int) -> ToolResult:
        """The result with valid content of at most `limit` characters."""
        content = truncate(sanitize_text(self.content), limit)
        return self if content == self.content else self.model_copy(update={"content": content})

    @classmethod
    def no_such_tool(cls, name: str, names: Iterable[str]) -> ToolResult:
        """A call of a tool that there is not."""
        asked, known = truncate(sanitize_text(name), 100), truncate(", ".join(names), 4_000)
        return cls.not_run(f"there is no tool {asked}; the tools are: {known}")

    @classmethod
    def not_run(cls, reason: str) -> ToolResult:
        """A call that was refused before its first attempt: the model's fault, and for it to mend."""
        return cls(content=f"error: {reason}", status="error", attempts=0, elapsed_ms=0)

    @classmethod
    def refused(cls, name: str, reason: str) -> ToolResult:
        """A call that the service would not make: the model can do nothing about it."""
        return cls(content=f"error: {name} was not called: {reason}", status="refused", attempts=0, elapsed_ms=0)

    @classmethod
    def unknown(cls, name: str, attempts: int, elapsed_ms: float) -> ToolResult:
        """An effect of which nobody knows whether it happened."""
        content = f"error: the outcome of {name} is unknown; it may have happened, do not repeat it"
        return cls(content=content, status="unknown", attempts=attempts, elapsed_ms=elapsed_ms)

    @classmethod
    def timed_out(cls, name: str, attempts: int, elapsed_ms: float) -> ToolResult:
        """A call that took longer than it may."""
        content = f"error: {name} did not answer in time"
        return cls(content=content, status="timeout", attempts=attempts, elapsed_ms=elapsed_ms)


def make_tool_name(name: str) -> str:
    """Returns `name` as every provider takes it: 1 to 64 of `A-Za-z0-9_-`, beginning with a letter or `_`.

    A legal name stays as it is. One that loses more than its punctuation is told from others by a hash.
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
