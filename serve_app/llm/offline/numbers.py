"""Which numbers does a text hold, in figures and in words?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serve_app.llm.offline.words import Span

_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.])(?P<sign>-?)(?P<digits>\d{1,3}(?:,\d{3})+|\d{1,15})(?P<fraction>\.\d{1,10})?(?P<scale>[百千万亿]?)"
    r"(?![A-Za-z0-9_]*-[A-Za-z0-9])"
)
_NUMERAL = re.compile(
    r"\b(?P<word>one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|fifty|hundred)\b"
    r"|(?P<han>[一二两三四五六七八九十]{1,3})(?=[个人位间天晚次张件元块份台名小分月周年米])",
    re.IGNORECASE,
)
_SCALE = {"": 1, "百": 100, "千": 1_000, "万": 10_000, "亿": 100_000_000}
_COUNTED = "one two three four five six seven eight nine ten eleven twelve"
_WORDS = {word: number for number, word in enumerate(_COUNTED.split(), 1)} | {
    "twenty": 20,
    "thirty": 30,
    "fifty": 50,
    "hundred": 100,
}
_HAN_DIGITS = {character: number for number, character in enumerate("一二三四五六七八九", 1)} | {"两": 2}


def numbers_in(text: str) -> list[tuple[Span, float]]:
    """Figures first, then numbers in words: "a room for 8" beside "one more"."""
    figures = [
        (
            match.span(),
            float(match["sign"] + match["digits"].replace(",", "") + (match["fraction"] or ""))
            * _SCALE[match["scale"]],
        )
        for match in _NUMBER.finditer(text)
    ]
    return figures + [
        (match.span(), float(_WORDS[match["word"].lower()] if match["word"] else _han_number(match["han"])))
        for match in _NUMERAL.finditer(text)
    ]


def _han_number(numeral: str) -> int:
    tens, ten, ones = numeral.rpartition("十")
    units = _HAN_DIGITS.get(ones[:1], 0)
    return (_HAN_DIGITS.get(tens[-1:], 1) * 10 if ten else 0) + units
