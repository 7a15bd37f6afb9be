"""Valid Unicode out of what a provider sends."""

from __future__ import annotations

from serve_app.values.sanitize import REPLACEMENT, sanitize_text


class TextJoiner:
    """Makes text valid that comes in pieces; holds half of an emoji back until the other half comes."""

    __slots__ = ("_held", "_pieces", "characters")

    def __init__(self) -> None:
        self._held = ""
        self._pieces: list[str] = []
        self.characters = 0

    def add(self, piece: str) -> str:
        """Takes a piece and returns what can be shown by now."""
        if self._held:
            piece, self._held = self._held + piece, ""
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            piece, self._held = piece[:-1], piece[-1]
        piece = sanitize_text(piece)
        self.characters += len(piece)
        self._pieces.append(piece)
        return piece

    def flush(self) -> str:
        """Returns what was held back, made valid."""
        if not self._held:
            return ""
        self._held = ""
        self._pieces.append(REPLACEMENT)
        return REPLACEMENT

    @property
    def text(self) -> str:
        return "".join(self._pieces)
