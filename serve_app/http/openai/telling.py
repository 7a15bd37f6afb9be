"""Which text may still be sent, when what was sent cannot be taken back?

A run may tell its answer anew: after words that came before a tool call, or where another model or another process goes
on. OpenAI's protocol knows no such thing, so that a telling which begins like the one before goes on where that one
stopped, and one that does not stands in a paragraph of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serve_app.values import Token

BREAK = "\n\n"


@dataclass(slots=True)
class Telling:
    """What of an answer a client has."""

    sent: str = ""
    _begins: int = 0
    """Where in `sent` the telling begins that is gone on with."""
    _anew: str | None = None
    """A telling that so far says nothing else than the one before it."""

    def take(self, token: Token) -> str:
        """What is to be sent now."""
        if token.restart:
            self._anew = ""
        if self._anew is None:
            return self._send(token.text)
        self._anew += token.text
        if self.sent[self._begins :].startswith(self._anew):
            return ""
        return self._go_on(self._anew)

    def finish(self, result: str) -> str:
        """What is missing of the whole answer."""
        return self._go_on(result)

    def _go_on(self, told: str) -> str:
        self._anew = None
        before = self.sent[self._begins :]
        if told.startswith(before):
            return self._send(told[len(before) :])
        self._begins = len(self.sent) + len(BREAK)
        return self._send(BREAK + told)

    def _send(self, text: str) -> str:
        self.sent += text
        return text
