"""Finds the passages that an answer cites by number, in any form that models write.

[1] ［1］ 【1】 〔１〕 [1, 2] [1][2] [1-3] [^1] 【1†source】 [citation:1] name passages.
A bare number, a link, an index, code and a number that no passage has do not.
"""

from __future__ import annotations

import re

_ONE_FORM = str.maketrans(
    "［］【】〔〕０１２３４５６７８９，、；;–—−‐‑～〜~＾：",
    "[][][]0123456789,,,,--------^:",
)
"""One mark for one, so that places in the text stay what they are."""

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


def cited_numbers(answer: str, count: int) -> set[int]:
    """The numbers from 1 to `count` that `answer` cites."""
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
    """The answer with blanks for its code: what is fenced, and what stands between as many backticks."""
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
    """Those of one pair of brackets; none where one of them belongs to no passage: then they are something else."""
    found: set[int] = set()
    for item in re.findall(rf"{_ITEM}", items):
        ends = [int(number) for number in re.findall(r"\d+", item)]
        if not 1 <= ends[0] <= ends[-1] <= count:
            return set()
        found |= set(range(ends[0], ends[-1] + 1))
    return found
