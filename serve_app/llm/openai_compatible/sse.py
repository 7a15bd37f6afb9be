"""Reads server-sent events from bytes, as the WHATWG standard has them.

One thing is read more kindly: an event that the connection's end cuts off before its blank line still counts, because
some servers end so. Whether the reply is whole is decided by what it says.
"""

from __future__ import annotations

import codecs

MAX_EVENT_CHARACTERS = 16_000_000


class EventReader:
    """Collects the events of one stream, whatever pieces the bytes come in."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        """The beginning of a line."""
        self._name = ""
        self._data: list[str] = []
        self._ended_with_cr = False

    def feed(self, piece: bytes) -> list[tuple[str, str]]:
        """The name and the data of each event that this piece completes."""
        return self._read(self._decoder.decode(piece))

    def finish(self) -> list[tuple[str, str]]:
        """The event that was not completed."""
        return self._read(self._decoder.decode(b"", final=True) + "\n\n")

    def _read(self, text: str) -> list[tuple[str, str]]:
        if self._ended_with_cr and text:
            text = text.removeprefix("\n")
            self._ended_with_cr = False
        if "\r" in text:
            self._ended_with_cr = text.endswith("\r")
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        *lines, self._rest = (self._rest + text).split("\n")
        if len(self._rest) > MAX_EVENT_CHARACTERS:
            raise ValueError("an event is too long")
        events: list[tuple[str, str]] = []
        for line in lines:
            if not line:
                if self._data:
                    events.append((self._name, "\n".join(self._data)))
                self._name, self._data = "", []
            elif line[0] != ":":
                self._take(line)
        return events

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
