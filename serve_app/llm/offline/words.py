"""Which words of a text carry its content, and which of them does a tool's description account for?"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from serve_app.llm.offline import glossary
from serve_app.terms import content_terms, terms

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
LOOKED_AT_CHARACTERS = 2_000
"""Of a long message, its beginning and its end: what it asks stands there."""
MAX_WORD_CHARACTERS = 64

Span = tuple[int, int]

_WORD = re.compile(rf"(?P<han>[{HAN}]+)|(?:(?![{HAN}])[^\W_])+(?:['.-](?:(?![{HAN}])[^\W_])+)*")
_HAN = re.compile(f"[{HAN}]")
_LETTER = re.compile(rf"(?![{HAN}])[^\W\d_]+")
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212\ufe63"), "-") | {ord("\u2019"): "'"}
_REQUEST_WORDS = frozenset(glossary.REQUEST_WORDS.split())
_ASKING = re.compile("|".join(map(re.escape, sorted(glossary.REQUEST_PHRASES.split(), key=len, reverse=True))))
_CUT = re.compile(f"(?:{_ASKING.pattern}|[的了吗呢吧啊在是])+")
_EMPTY_CHARACTERS = glossary.PARTICLES + glossary.REQUEST_CHARACTERS + glossary.FUNCTION_CHARACTERS
_NAME_PARTS = re.compile(r"[_\-.]+|(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Word:
    """A word of content as it was written, and where."""

    text: str
    start: int

    @property
    def weight(self) -> float:
        """A word counts one, and so do two Chinese characters."""
        return len(self.text) / 2 if _HAN.match(self.text) else 1.0

    @property
    def span(self) -> Span:
        return (self.start, self.start + len(self.text))


def plain(text: str) -> str:
    """The text in one width and with one kind of hyphen, cut to what is looked at."""
    if len(text) > LOOKED_AT_CHARACTERS:
        quarter = LOOKED_AT_CHARACTERS // 4
        text = f"{text[: 3 * quarter]} {text[-quarter:]}"
    return unicodedata.normalize("NFKC", text).translate(_DASHES)


def is_chinese(text: str) -> bool:
    """Whether a reader would take `text` for Chinese: an identifier or a name in Latin letters does not change it."""
    han = len(_HAN.findall(text))
    return han > 0 and 2 * han >= len(_LETTER.findall(text))


def vocabulary(text: str) -> frozenset[str]:
    """What `text` speaks of, as terms and as groups of synonyms."""
    text = plain(_NAME_PARTS.sub(" ", text))
    words = frozenset(term for term in terms(_ASKING.sub(" ", text)) if len(term) > 1 and term not in _REQUEST_WORDS)
    groups = {_GROUP_OF[term] for term in words if term in _GROUP_OF}
    return words | groups | {_GROUP_OF[match.group()] for match in _HAN_GROUPS.finditer(text)}


def topic(text: str) -> frozenset[str]:
    """The terms that tell what a question is about; all its terms where it only asks."""
    named = frozenset(term for term in content_terms(_ASKING.sub(" ", plain(text))) if term not in _REQUEST_WORDS)
    return named or content_terms(plain(text))


def groups(text: str) -> list[tuple[str, Span]]:
    """The groups of synonyms that `text` names, and where."""
    named = [(_GROUP_OF[match.group()], match.span()) for match in _HAN_GROUPS.finditer(text)]
    for match in (match for match in _WORD.finditer(text) if not match["han"]):
        named += [(meaning, match.span()) for meaning in _meanings(match.group()) if meaning.startswith("#")]
    return sorted(named, key=lambda each: each[1])


def content(text: str, accounted: frozenset[str] = frozenset()) -> tuple[float, list[Word]]:
    """The weight of the words that `accounted` holds, and the other words of content in order."""
    weight, rest = 0.0, []
    for match in _WORD.finditer(text):
        if match["han"]:
            known, others = _han_content(match.group(), match.start(), accounted)
            weight += known
            rest += others
        elif meanings := _meanings(match.group()):
            if meanings & accounted:
                weight += 1
            else:
                rest.append(Word(match.group(), match.start()))
    return weight, rest


def overlap(text: str, accounted: frozenset[str]) -> float:
    """The weight of the words of `text` that `accounted` holds."""
    return content(text, accounted)[0]


@lru_cache(maxsize=4096)
def _meanings(word: str) -> frozenset[str]:
    """Empty for a word without content."""
    if len(word) > MAX_WORD_CHARACTERS or word.casefold() in _REQUEST_WORDS:
        return frozenset()
    stems = content_terms(word)
    return stems | {_GROUP_OF[stem] for stem in stems if stem in _GROUP_OF}


def _han_content(run: str, start: int, accounted: frozenset[str]) -> tuple[float, list[Word]]:
    known = bytearray(len(run))
    for match in _HAN_GROUPS.finditer(run):
        if _GROUP_OF[match.group()] in accounted:
            known[match.start() : match.end()] = b"\1" * len(match.group())
    for index in range(len(run) - 1):
        if run[index : index + 2] in accounted:
            known[index : index + 2] = b"\1\1"
    masked = "".join("\0" if flag else character for flag, character in zip(known, run, strict=True))
    return sum(known) / 2, list(_han_words(_CUT.sub(lambda cut: "\0" * len(cut.group()), masked), start))


def _han_words(masked: str, start: int) -> list[Word]:
    words = []
    for match in re.finditer("[^\0]+", masked):
        stretch = match.group()
        inner = _inner(stretch)
        if inner:
            words.append(Word(inner, start + match.start() + stretch.index(inner)))
    return words


def _inner(stretch: str) -> str:
    """A Chinese stretch without the characters at its edges that carry no content."""
    bare = stretch.strip(glossary.PARTICLES)
    if not bare.strip(_EMPTY_CHARACTERS):
        return ""
    inner = bare
    for shorter in (str.rstrip, str.lstrip):
        left = shorter(inner, glossary.REQUEST_CHARACTERS + glossary.PARTICLES + "那" * (shorter is str.lstrip))
        inner = left if len(left) > 1 else inner
    return inner


def _groups() -> dict[str, str]:
    """Each word of the glossary, stemmed where it is English, with the name of its group."""
    lines = [line.split() for line in (glossary.SYNONYMS + glossary.CURRENCIES).strip().splitlines()]
    return {
        key: f"#{words[0]}"
        for words in lines
        for word in words
        for key in ((word,) if _HAN.match(word) else terms(word))
    }


_GROUP_OF = _groups()
_HAN_GROUPS = re.compile("|".join(sorted(filter(_HAN.match, _GROUP_OF), key=len, reverse=True)))
