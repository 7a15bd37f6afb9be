"""Which frames does a stream of server-sent events hold?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True)
class Frame:
    """One event, as it was sent."""

    event: str
    data: str
    id: str = ""


def frames(chunks: Iterable[bytes]) -> Iterator[Frame]:
    """The complete frames of `chunks`, however these are cut; comments, and a frame broken off at the end, are not.

    Lines end by LF or CRLF. Other characters that Python takes for line breaks, such as U+2028, are text.
    """
    fields: dict[str, list[str]] = {}
    for line in _lines(chunks):
        if line:
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
        elif "data" in fields:
            yield Frame(_last(fields, "event") or "message", "\n".join(fields["data"]), _last(fields, "id"))
            fields = {}
        else:
            fields = {}


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *complete, rest = (rest + chunk).split(b"\n")
        for line in complete:
            yield line.removesuffix(b"\r").decode(errors="replace")


def _last(fields: dict[str, list[str]], name: str) -> str:
    return fields.get(name, [""])[-1]
