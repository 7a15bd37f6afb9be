"""Splits a text into terms, for searching and for comparing.

Words of alphabetic scripts are stemmed (Snowball, English); identifiers such as `apt-get`, `/etc/fstab`, `ext4` and
`PubkeyAuthentication` yield the whole and their parts. Scripts without spaces (Han, kana, hangul) yield every character
and every pair of neighbours: pairs are specific, single characters find a word inside another compound.
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

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Han characters, and only they, for a character class of a regular expression."""

KANA = "\u3041-\u30ff"
_HANGUL = "\uac00-\ud7af"
_CJK = f"\u3005-\u3007{KANA}{HAN}{_HANGUL}"
_WORD = rf"[^\W_{_CJK}]+(?:'[^\W\d_{_CJK}]+)*"
_CHUNK = re.compile(rf"(?P<cjk>[{_CJK}]+)|(?P<word>{_WORD}(?:[-_./+:@]+{_WORD})*(?:\+\+|#)?)")
_PART = re.compile(_WORD)
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z][a-z])")
_LETTERS_THEN_DIGITS = re.compile(r"([a-z]{3,})\d+")

_ENGLISH = frozenset(
    re.findall(
        r"\S+",
        """a about after again all also am an and any anyone anything are aren't as at be because been before being both
        but by can can't cannot could couldn't did didn't do does doesn't doing don't down each else ever
        everything few for from further get got had has hasn't have haven't having he her here hers him his
        how i i'd i'll i'm i've if in into is isn't it it's its itself just know let let's like me more most
        my myself need no nor not of off on once only or other our ours out over own please really same shall
        she should shouldn't so some someone something such tell than that that's the their theirs them then
        there these they thing things this those through to too under until up us very want was wasn't way we
        were what what's when where which while who whom whose why will with without won't would wouldn't yet
        you you'd you'll you're your yours""",
    )
)
_HOW = re.compile(r"\bhow (?:long|many|much|often|far|soon)\b", re.IGNORECASE)
"""Question words of two parts; the second alone would count as content."""
_CHINESE = re.compile(
    "|".join(
        sorted(
            re.findall(
                r"\S+",
                """的 了 吗 呢 吧 啊 呀 嘛 么 哦 我 你 您 他 她 它 这 那 哪 谁 们 是 和 与 或 及 也 都 就 把
                被 让 给 很 没 又 才 已 想 为什么 怎么办 怎么样 怎样 怎么 如何 什么 什么样 什么时候 多少
                多久 多长 多长时间 几个 是否 请问 哪个 哪些 哪里 哪儿 有没有 是不是 能不能 可不可以 这个
                那个 这些 那些 这里 那里 这样 那样 这么 那么 一个 一些 一下 一种 有些 有的 每个 各个 其他
                其它 另外 我们 你们 他们 她们 它们 自己 别人 有人 东西 事情 地方 办法 可以 能够 可能 也许
                应该 需要 必须 一定 最好 想要 还能 还会 还是 还有 不是 不能 不会 不要 不用 没有 不小心
                如果 要是 假如 只要 只有 只是 就是 都是 全是 而是 因为 所以 因此 由于 但是 不过 虽然 而且
                或者 以及 并且 于是 然后 之后 之前 关于 对于 根据 为了 已经 正在 刚刚 刚才 马上 立刻 总是
                老是 一直 经常 有时 非常 有点 好像 知道 告诉 帮我 帮忙 麻烦 起来 下来 出来 过来 回来 回头
                时候 的话""",
            ),
            key=len,
            reverse=True,
        )
    )
)


def terms(text: str) -> list[str]:
    """The terms of `text` in order, with repetitions."""
    return list(_terms(_normalize(text)))


def content_terms(text: str) -> frozenset[str]:
    """The distinct terms of a text; of Han, kana and hangul the pairs."""
    return frozenset(_terms(_normalize(text), pairs_only=True))


def _normalize(text: str) -> str:
    return _HOW.sub(" ", unicodedata.normalize("NFKC", text).replace("\u2019", "'"))


def _terms(text: str, *, pairs_only: bool = False) -> Iterator[str]:
    for chunk in _CHUNK.finditer(text):
        if chunk.lastgroup == "cjk":
            for run in _CHINESE.split(chunk.group()):
                yield from _run_terms(run, pairs_only=pairs_only)
        else:
            yield from _word_terms(chunk.group())


def _run_terms(run: str, *, pairs_only: bool) -> Iterator[str]:
    if not pairs_only or len(run) == 1:
        yield from run
    yield from (left + right for left, right in pairwise(run))


@lru_cache(maxsize=1 << 16)
def _word_terms(chunk: str) -> tuple[str, ...]:
    parts = [hump for part in _PART.findall(chunk) for hump in _HUMP.split(part)]
    if len(parts) == 1:
        whole = chunk.casefold()
        return () if whole in _ENGLISH else (_stem(whole), *_leading_letters(whole))
    words = [part for part in map(str.casefold, parts) if len(part) > 1 and part not in _ENGLISH]
    return (chunk.casefold(), *map(_stem, words), *(letters for part in words for letters in _leading_letters(part)))


def _stem(word: str) -> str:
    return str(snowballstemmer.stemmer("english").stemWord(word))


def _leading_letters(word: str) -> tuple[str, ...]:
    match = _LETTERS_THEN_DIGITS.fullmatch(word)
    return (_stem(match[1]),) if match else ()
