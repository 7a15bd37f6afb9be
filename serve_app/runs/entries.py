"""Events as they stand in a run's log."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from serve_app.errors import Internal, StoreCorrupt
from serve_app.values import (
    Answer,
    Cancelled,
    Failed,
    Failure,
    Reasoning,
    RunEvent,
    RunStarted,
    Token,
    ToolCall,
    ToolRequest,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from serve_app.values import EventData

    Row = tuple[str, Mapping[str, str]]

logger = logging.getLogger(__name__)

KINDS = {kind.event: kind for kind in (RunStarted, Token, Reasoning, ToolRequest, ToolCall, Answer, Failed, Cancelled)}
LAST = {Answer.event, Failed.event, Cancelled.event}


@dataclass(frozen=True)
class Entry:
    """An event, and in `state` what a process that goes on with the run needs besides: its writer's own words."""

    event: RunEvent
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
    """The entry that a Redis stream holds as `stream_id`; a newer version may have said more of it.

    Raises:
        StoreCorrupt: nobody can read it.
    """
    try:
        data: EventData = KINDS[fields["event"]].model_validate_json(fields["data"], extra="ignore")
        return Entry(RunEvent(id=_number(stream_id), data=data), fields.get("state", ""))
    except (KeyError, ValueError) as error:
        raise StoreCorrupt("An event of the run cannot be read") from error


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """The entries of both streams as they happened."""
    return sorted(entries, key=lambda each: each.event.id)


def readable(rows: Iterable[Row]) -> list[Entry]:
    """The entries for a follower, in order.

    One that cannot be read costs no other: it is left out, and a last one is a failure, so that nobody waits for it.
    """
    return in_order(each for row in rows if (each := _shown(*row)))


def _shown(stream_id: str, fields: Mapping[str, str]) -> Entry | None:
    try:
        return entry(stream_id, fields)
    except StoreCorrupt:
        logger.exception("event_unreadable", extra={"entry": stream_id, "kind": fields.get("event")})
    if fields.get("event") not in LAST:
        return None
    failed = Failed(error=Failure.of(Internal("The last event of the run cannot be read"), ""))
    return Entry(RunEvent(id=_number(stream_id), data=failed))


def _number(stream_id: str) -> int:
    return int(stream_id.partition("-")[0])


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
