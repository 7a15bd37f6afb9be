"""Parses server-sent events from bytes, by the WHATWG standard."""

from __future__ import annotations

import codecs
from typing import NamedTuple

from serve_app.llm.openai_compatible.provider_error import ReplyUnreadable

MAX_LINE_CHARACTERS = 8 * 1024 * 1024


class StreamEvent(NamedTuple):
    """One event: its name ("" for the usual one) and the lines of its data."""

    name: str
    data: tuple[str, ...]


class EventParser:
    """Parses bytes that are split anywhere into events."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._line: list[str] = []
        self._line_characters = 0
        self._name = ""
        self._data: list[str] = []
        self._started = False
        self._return = False

    def feed(self, data: bytes, *, final: bool = False) -> list[StreamEvent]:
        """Takes the next bytes; returns the events that they complete."""
        text = self._decoder.decode(data, final)
        if not text:
            return []
        if not self._started:
            self._started = True
            text = text.removeprefix("\ufeff")
        if self._return and text.startswith("\n"):  # the other half of a CRLF
            text = text[1:]
        self._return = text.endswith("\r") if text else False
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        return self._lines(text)

    def close(self) -> list[StreamEvent]:
        """Ends the stream. An event without its empty line counts too: some providers end so."""
        return self.feed(b"", final=True) + self._lines("\n\n")

    def _lines(self, text: str) -> list[StreamEvent]:
        first, *rest = text.split("\n")
        self._line.append(first)
        self._line_characters += len(first)
        if self._line_characters > MAX_LINE_CHARACTERS:
            raise ReplyUnreadable("a line of the stream is too long")
        if not rest:
            return []
        events: list[StreamEvent] = []
        lines = ["".join(self._line), *rest]
        self._line = [lines.pop()]
        self._line_characters = len(self._line[0])
        for line in lines:
            if line:
                self._field(line)
            else:
                if self._data:
                    events.append(StreamEvent(self._name, tuple(self._data)))
                    self._data = []
                self._name = ""
        return events

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))
        elif name == "event":
            self._name = value.removeprefix(" ")
