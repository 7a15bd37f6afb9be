"""Citations: the passages that an answer cites, in any form that models write.

[1] ［1］ 【1】 〔１〕 [1, 2] [1][2] [1-3] [^1] 【1†source】 [citation:1] name passages.
A bare number, a link, an index, code and a number that no passage has do not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from serve_app.terms import content_terms
from serve_app.values import Citation

if TYPE_CHECKING:
    from serve_app.values import Passage

_ONE_FORM = str.maketrans(
    "［］【】〔〕０１２３４５６７８９，、；;–—−‐‑～〜~＾：",
    "[][][]0123456789,,,,--------^:",
)
"""One character for one, so that positions in the text stay the same."""

_FENCED = re.compile(r"(?ms)^[ \t]*(`{3,}+|~{3,}+)[^\n]*\n.*?(?:^[ \t]*\1[`~]*[ \t]*$|\Z)")
_TICKS = re.compile("`+")
_WORD = r"(?:citations?|cite|sources?|passages?|refs?|references?|docs?|来源|出处|引用|资料|段落|文献)[ :#]*"
_NUMBER = r"\^?\d{1,4}"
_ITEM = rf"{_NUMBER}(?: ?- ?{_NUMBER})?"
_CITED = re.compile(rf"(?i)\\?\[ ?(?:{_WORD})?({_ITEM}(?:(?: ?, ?| |(?=\^)){_ITEM})*) ?(?:†[^\[\]\n]{{0,200}})?\\?\]")
_DEFINED = re.compile(r"(?m)^[ \t]*\[(\d{1,4})\]:[ \t]*<?(?:[a-z]+://|/|www\.)")
_INDEXED = re.compile(
    r"(?:(?<![A-Za-z\d])(?<!\d )[A-Za-z]|\w*_\w*|[a-z]{2,}[A-Z][a-z]\w*"
    r"|(?<![A-Za-z])(?:[a-z]|\w*_\w*)\([^()\n]*\)|\w\(\)"
    r"|\b(?:arr|array|argv|args|nums|vec|buf|items|elems|list|rows|tuple|matrix))$"
)
"""What stands before an index: a variable of one letter (no unit such as 5 V), a name that only code has, a call."""

_CODE_AFTER = re.compile(r"\(|\{|\.[a-z_]+[(.=\[ ]|\s*(?:\+=|-=|:=|=(?![=>]))|->")
_NEAR = 40
ENOUGH_WORDS, ENOUGH_SHARE = 8, 0.6
"""How many of an answer's words a passage must have: 60 % of them, but never more than 8."""


def cite_passages(answer: str, passages: list[Passage]) -> list[Citation]:
    """Return the passages that `answer` cites by number.

    Where it cites none, they are those whose words it is made of.
    """
    if not passages:
        return []
    cited = cited_numbers(answer, len(passages))
    by_number = [passage for number, passage in enumerate(passages, 1) if number in cited]
    chosen = by_number or _passages_reused(content_terms(answer), passages)
    return [
        Citation(source=passage.source, title=passage.title, passage=passage.text, score=passage.score)
        for passage in chosen
    ]


def _passages_reused(words: frozenset[str], passages: list[Passage]) -> list[Passage]:
    """Return the passages that share enough words with the answer.

    An answer that says that nothing was found shares few with any passage.
    """
    enough = min(ENOUGH_WORDS, ENOUGH_SHARE * len(words))
    return [passage for passage in passages if words and len(words & content_terms(passage.text)) >= enough]


def cited_numbers(answer: str, count: int) -> set[int]:
    """Return the numbers from 1 to `count` that `answer` cites."""
    text = _without_code(answer).translate(_ONE_FORM)
    labels = {int(label) for label in _DEFINED.findall(text)}
    text = _DEFINED.sub(lambda label: " " * len(label[0]), text)
    found: set[int] = set()
    indexed_to = -1
    for mark in _CITED.finditer(text):
        start, end = mark.span()
        before = text[max(0, start - _NEAR) : start]
        if start == indexed_to or _is_index(before, text[end : end + _NEAR]):
            indexed_to = end  # a[1][2] has two
            continue
        numbers = _numbers(mark[1], count)
        is_label = before.endswith("]") and not re.search(r"\d\\?\]$", before) and numbers <= labels
        if not is_label:
            found |= numbers
    return found


def _without_code(answer: str) -> str:
    """Replace code with blanks: fenced blocks, and text between equal numbers of backticks."""
    text = _FENCED.sub(lambda code: " " * len(code[0]), answer)
    runs = list(_TICKS.finditer(text))
    closing: dict[int, int] = {}
    latest: dict[str, int] = {}
    for place in reversed(range(len(runs))):
        if runs[place][0] in latest:
            closing[place] = latest[runs[place][0]]
        latest[runs[place][0]] = place
    pieces, read, place = [], 0, 0
    while place < len(runs):
        if place in closing:
            start, place = runs[place].start(), closing[place]
            pieces += [text[read:start], " " * (runs[place].end() - start)]
            read = runs[place].end()
        place += 1
    return "".join([*pieces, text[read:]])


def _is_index(before: str, after: str) -> bool:
    if before.endswith("!") and after.startswith("("):
        return True
    if before.rstrip().endswith("=") or (before.endswith("[") and after.startswith("](")):
        return True
    return _CODE_AFTER.match(after) is not None or _INDEXED.search(before) is not None


def _numbers(items: str, count: int) -> set[int]:
    """Return the numbers in one pair of brackets.

    The set is empty where one of them has no passage: then they are no citation.
    """
    found: set[int] = set()
    for item in re.findall(_ITEM, items):
        ends = [int(number) for number in re.findall(r"\d+", item)]
        if not 1 <= ends[0] <= ends[-1] <= count:
            return set()
        found |= set(range(ends[0], ends[-1] + 1))
    return found
