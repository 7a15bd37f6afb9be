"""Which lines of a typeset page belong to one paragraph, one list or one listing?"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FULL = 0.85
"""A line of this part of the usual width goes on in the next; proportional type varies by about as much."""

HYPHEN = "\ufffe"
"""How PDFium marks a hyphen at the end of a line, which may be the word's own."""

_BULLET = re.compile(r"[•●▪∙]\s*|[·*-]\s+")
_INNER_BULLET = re.compile(r"[◦‣]\s*|–\s+")
_NUMBER = re.compile(r"\d{1,3}[.)]\s")
_COMMAND = re.compile(r"[$>] |#{1,6}\s")
_CLOSING = "\"')]”’」』）"
_SENTENCE_ENDS = (".", "!", "?", ":", ";", "。", "！", "？", "：", "；")


def mend_hyphens(text: str) -> str:
    """Join words cut at line ends, with their hyphen only where the text writes them so elsewhere."""
    known = Counter(re.findall(r"\w+(?:-\w+)*", text))

    def mended(cut: re.Match[str]) -> str:
        joined, hyphened = cut[1] + cut[2], f"{cut[1]}-{cut[2]}"
        return hyphened if known[hyphened] > known[joined] else joined

    return re.sub(rf"(\w{{0,40}}){HYPHEN}(\w{{0,40}})", mended, text)


def usual_width(lines: Iterable[str]) -> float:
    """The width of a line that the margin ended, in Latin characters: three of four lines are narrower, or as wide."""
    widths = sorted(map(_width, lines))
    return widths[len(widths) * 3 // 4] if widths else 0


def to_markdown(lines: Sequence[str], full_width: float) -> str:
    """Paragraphs on a line each, list items marked by '-', and commands in fences so that no '#' makes a heading."""
    written: list[str] = []
    for before, line in pairwise(["", *lines]):
        shown, is_code = _shown(line), _is_command(line)
        if is_code and not _is_command(before):
            shown = f"```\n{shown}"
        if _is_command(before) and not is_code:
            written.append(f"\n```\n\n{shown}")
        else:
            written.append(_gap(before, line, full_width) + shown)
    if lines and _is_command(lines[-1]):
        written.append("\n```")
    return "".join(written).strip()


def _gap(before: str, line: str, full_width: float) -> str:
    if _is_command(line) or _is_command(before):
        return "\n" if _is_command(before) else "\n\n"
    ends = before.rstrip(_CLOSING).endswith(_SENTENCE_ENDS)  # a break there is never wrong, a missing one may be
    is_item = any(mark.match(line) for mark in (_BULLET, _INNER_BULLET, _NUMBER))
    if not is_item and not ends and _width(before) >= full_width * FULL:
        return "" if _wide(before[-1:]) or _wide(line[:1]) else " "
    return "\n\n" if ends and not is_item else "\n"


def _shown(line: str) -> str:
    if _is_command(line):
        return line
    for mark, shown in ((_BULLET, "- "), (_INNER_BULLET, "  - ")):
        if found := mark.match(line):
            return shown + line[found.end() :]
    return line.lstrip("`~") if line.startswith(("```", "~~~")) else line


def _is_command(line: str) -> bool:
    return _COMMAND.match(line) is not None


def _width(line: str) -> int:
    return sum(2 if _wide(character) else 1 for character in line)


def _wide(character: str) -> bool:
    return bool(character) and unicodedata.east_asian_width(character) in "WF"
