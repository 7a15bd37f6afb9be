"""Which terms does a text consist of, for searching and for comparing?

Words of alphabetic scripts are stemmed (Snowball, English); identifiers such as `apt-get`, `/etc/fstab`, `ext4` and
`PubkeyAuthentication` yield the whole and their parts. Scripts without spaces (Han, kana, hangul) yield every character
and every pair of neighbours: pairs tell what it is about, characters find a word that is written in another compound.
Function words of English and Chinese are left out.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import snowballstemmer

if TYPE_CHECKING:
    from collections.abc import Iterator

_CJK = r"\u3005-\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = rf"[^\W_{_CJK}]+(?:'[^\W\d_{_CJK}]+)*"
_CHUNK = re.compile(rf"(?P<cjk>[{_CJK}]+)|(?P<word>{_WORD}(?:[-_./+:@]+{_WORD})*(?:\+\+|#)?)")
_PART = re.compile(_WORD)
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z][a-z])")
_LETTERS_THEN_DIGITS = re.compile(r"([a-z]{3,})\d+")

_ENGLISH = frozenset(
    re.findall(
        r"\S+",
        """a about after again all also am an and any are aren't as at be because been before being both but by can can't
        cannot could couldn't did didn't do does doesn't doing don't down each else ever few for from further
        had has hasn't have haven't having he her here hers him his how i i'd i'll i'm i've if in into is isn't
        it it's its itself just let let's me more most my myself no nor not of off on once only or other our
        ours out over own please same shall she should shouldn't so some such than that that's the their theirs
        them then there these they this those through to too under until up us very was wasn't we were what
        what's when where which while who whom whose why will with won't would wouldn't yet you you'd you'll
        you're your yours""",
    )
)
_CHINESE = re.compile(
    "为什么|怎么办|怎么样|有没有|是不是|能不能|可不可以|怎样|怎么|如何|什么|多少|是否|请问|哪个|哪些|哪里|哪儿|这个|那个|这些|那些|这里|那里|"
    "这样|那样|一个|一些|一下|我们|你们|他们|她们|它们|自己|可以|能够|应该|需要|如果|因为|所以|但是|而且|或者|以及|并且|然后|时候|"
    "[的了吗呢吧啊呀嘛么我你您他她它这那哪谁们是和与或及也都就把被让给很]"
)


def terms(text: str) -> list[str]:
    """The terms of `text` in order, with repetitions."""
    return list(_terms(unicodedata.normalize("NFKC", text).replace("\u2019", "'")))


def content_terms(text: str) -> frozenset[str]:
    """The distinct terms that tell what `text` is about: of Han, kana and hangul the pairs where there are pairs."""
    return frozenset(_terms(unicodedata.normalize("NFKC", text).replace("\u2019", "'"), pairs_only=True))


def _terms(text: str, *, pairs_only: bool = False) -> Iterator[str]:
    for chunk in _CHUNK.finditer(text):
        if chunk.lastgroup == "cjk":
            for run in _CHINESE.split(chunk.group()):
                yield from _of_run(run, pairs_only=pairs_only)
        else:
            yield from _of_word(chunk.group())


def _of_run(run: str, *, pairs_only: bool) -> Iterator[str]:
    if not pairs_only or len(run) == 1:
        yield from run
    yield from (left + right for left, right in pairwise(run))


@lru_cache(maxsize=1 << 16)
def _of_word(chunk: str) -> tuple[str, ...]:
    parts = [hump for part in _PART.findall(chunk) for hump in _HUMP.split(part)]
    if len(parts) == 1:
        whole = chunk.casefold()
        return () if whole in _ENGLISH else (_stem(whole), *_letters(whole))
    named = [part for part in map(str.casefold, parts) if len(part) > 1 and part not in _ENGLISH]
    return (chunk.casefold(), *map(_stem, named), *(letters for part in named for letters in _letters(part)))


def _stem(word: str) -> str:
    return str(snowballstemmer.stemmer("english").stemWord(word))


def _letters(word: str) -> tuple[str, ...]:
    match = _LETTERS_THEN_DIGITS.fullmatch(word)
    return (_stem(match[1]),) if match else ()
