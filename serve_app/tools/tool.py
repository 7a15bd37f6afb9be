"""What can be asked of a tool, whatever its kind?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from serve_app.values import ToolSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serve_app.config import ToolSettings
    from serve_app.values import IdempotencyKey


@dataclass(frozen=True, slots=True)
class Said:
    """A tool's answer, for the model; not `well` where it is the tool's own error."""

    content: str
    well: bool = True


class WrongArguments(Exception):
    """What the model gave is not what the tool takes; the text says to the model why."""


class Tool(Protocol):
    """One endpoint that answers calls."""

    @property
    def spec(self) -> ToolSpec:
        """What the model is told; not `ready` while that is not known."""
        ...

    def start(self) -> None:
        """Look for what it needs, from now on and in the background."""
        ...

    def read(self, arguments: dict[str, Any]) -> Mapping[str, Any]:
        """The model's arguments as the tool takes them.

        Raises:
            WrongArguments: the tool does not take them.
        """
        ...

    async def ask(self, given: Mapping[str, Any], key: IdempotencyKey) -> Said:
        """Make one call, with no time-out of its own; it raises whatever the tool raises."""
        ...

    async def close(self) -> None:
        """Let go of connections and processes."""
        ...


@runtime_checkable
class ServerTools(Protocol):
    """All tools of a server, known once it has listed them."""

    @property
    def there(self) -> bool:
        """Whether the server is there and has tools."""
        ...

    @property
    def tools(self) -> Mapping[str, Tool]:
        """Its tools by the names that they have here."""
        ...

    def settings_of(self, name: str) -> ToolSettings:
        """The settings that hold for one of them."""
        ...


def spec_of(name: str, settings: ToolSettings, description: str, parameters: dict[str, Any]) -> ToolSpec:
    """What the model is told of a tool, and how it is called."""
    return ToolSpec(
        name=name,
        description=description,
        parameters=parameters,
        timeout_s=settings.timeout_s,
        attempts=settings.attempts,
        effect=settings.effect,
    )


def absent(name: str, settings: ToolSettings) -> ToolSpec:
    """What is known of a tool that is not there."""
    return spec_of(name, settings, "", {}).model_copy(update={"ready": False})
