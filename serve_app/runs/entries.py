"""How does an event stand in a run's log?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from serve_app.values import Answer, Cancelled, Event, Failed, Reasoning, RunStarted, Token, ToolCall, ToolRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from serve_app.values import EventData

KINDS = {kind.event: kind for kind in (RunStarted, Token, Reasoning, ToolRequest, ToolCall, Answer, Failed, Cancelled)}


@dataclass(frozen=True)
class Entry:
    """An event, and in `state` what a process that goes on with the run needs besides: its writer's own words."""

    event: Event
    state: str = ""

    @cached_property
    def arguments(self) -> tuple[int, str, str, str]:
        """As `scripts.APPEND` takes it."""
        return (self.event.id, self.event.name, self.event.data.model_dump_json(), self.state)

    @property
    def size(self) -> int:
        """About the characters that it takes up."""
        return sum(map(len, self.arguments[1:]))


def entry(stream_id: str, fields: Mapping[str, str]) -> Entry:
    """The entry that a Redis stream holds as `stream_id`."""
    data: EventData = KINDS[fields["event"]].model_validate_json(fields["data"])
    return Entry(Event(id=int(stream_id.partition("-")[0]), data=data), fields.get("state", ""))


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """The entries of both streams as they happened."""
    return sorted(entries, key=lambda each: each.event.id)


def merged(steps: Iterable[tuple[EventData, str]]) -> list[tuple[EventData, str]]:
    """The steps, neighbouring tokens as one; a restart begins a token of its own."""
    joined: list[tuple[EventData, str]] = []
    for data, state in steps:
        before = joined[-1][0] if joined else None
        if isinstance(data, Token) and isinstance(before, Token) and not data.restart:
            joined[-1] = (Token(text=before.text + data.text, restart=before.restart), "")
        elif isinstance(data, Reasoning) and isinstance(before, Reasoning):
            joined[-1] = (Reasoning(text=before.text + data.text), "")
        else:
            joined.append((data, state))
    return joined
