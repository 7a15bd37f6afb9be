"""What does an identifier look like, and where does one stand in a text?

Whole tokens are matched against its expressions: a token is short, so that no expression takes long.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from serve_app.llm.offline.words import Span

MAX_TOKEN_CHARACTERS = 64
MAX_TOKENS = 400
FEW_DIGITS = 3
"""So many beside letters are not a version or a standard."""

TOKEN = re.compile(r"[A-Za-z0-9]+(?:(?:[-_/.:#@+]|://)[A-Za-z0-9]+)*")
_JOINTS = re.compile(r"[/.:#@+]+")
_BEFORE_DIGIT = re.compile(r"(?<=[A-Za-z])[ _-]?(?=\d)")


@dataclass(frozen=True, slots=True)
class Found:
    """An identifier in the form that its shape wants, and where it stands."""

    value: str
    span: Span


@dataclass(frozen=True, slots=True)
class Shape:
    """What an identifier looks like."""

    patterns: tuple[re.Pattern[str], ...]
    certain: bool
    """Whether a token of this shape is hardly anything else."""
    upper: bool = False
    """Whether the examples are in capitals: then so is what is found."""
    digits: bool = True
    """Whether it has a digit: then words are not looked at."""
    as_written: bool = False
    """Whether another case or another hyphen makes another identifier."""

    def find(self, text: str) -> list[Found]:
        """The identifiers in order, each once, none overlapping another."""
        found: dict[str, Found] = {}
        end = 0
        for start, token in _candidates(text):
            if start < end or (self.digits and not any(map(str.isdigit, token))):
                continue
            value = self.fit(token)
            if value is not None:
                end = start + len(token)
                found.setdefault(value, Found(value, (start, end)))
        return list(found.values())

    def fit(self, token: str) -> str | None:
        """The token in the form that the shape wants, or None."""
        if len(token) > MAX_TOKEN_CHARACTERS or (self.as_written and " " in token):
            return None
        for variant in _variants(token, upper=self.upper) if self.digits and not self.as_written else (token,):
            if any(pattern.fullmatch(variant) for pattern in self.patterns):
                return variant
        return None


def stands_alone(token: str) -> bool:
    """Whether a token is an identifier even where nothing says so: letters and many digits."""
    return has_letter(token) and sum(map(str.isdigit, token)) >= FEW_DIGITS


def _candidates(text: str) -> Iterator[tuple[int, str]]:
    """Tokens, their parts, and a token with the next one where a space is between them."""
    before: re.Match[str] | None = None
    for count, match in enumerate(TOKEN.finditer(text)):
        if count >= MAX_TOKENS:
            return
        if before and before.end() + 1 == match.start() and text[before.end()] == " " and before.group().isalpha():
            yield before.start(), f"{before.group()} {match.group()}"
        yield match.start(), match.group()
        start = match.start()
        for part in _JOINTS.split(match.group()) if _JOINTS.search(match.group()) else ():
            start = text.index(part, start)
            yield start, part
            start += len(part)
        before = match


def _variants(token: str, *, upper: bool) -> Iterable[str]:
    """The token as it may have been meant: another case, another hyphen, none."""
    forms = (token, _BEFORE_DIGIT.sub("-", token), re.sub("[ _-]", "", token))
    cased = [(form.upper(), form, form.lower()) if upper else (form, form.upper(), form.lower()) for form in forms]
    return dict.fromkeys(variant for three in cased for variant in three)


def has_letter(text: str) -> bool:
    """Whether it is more than a number."""
    return any(map(str.isalpha, text))
