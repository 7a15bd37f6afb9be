"""Measures how likely a decoded text is language, to find wrong decodings.

A wrong decoding has symbols and capitals inside words, words of two scripts, letters that the language does not have,
and rare characters. All functions are pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Language:
    """A language's letters beyond ASCII, and its most frequent words."""

    letters: frozenset[str]
    words: frozenset[str]


def _language(letters: str, words: str) -> Language:
    return Language(frozenset(letters), frozenset(words.split()))


LANGUAGES = (
    _language(
        "éèêàçïöüñ", "the of and to in is that for it with as was on be are this by not you have from or at an can"
    ),
    _language(
        "àâæçéèêëîïôœùûüÿ", "le la les de des du et est un une que qui dans pour pas sur au par il ne se en ce à vous"
    ),
    _language(
        "äöüß",
        "der die das und ist von den zu mit nicht ein eine für auf im dem des sich werden auch wird sind bei oder",
    ),
    _language("áéíñóúüºª", "de la el los las y en que un una por con para es del se no su al lo como más si le me mi"),
    _language("áâãàçéêíóôõúüºª", "de a o os as e em que um uma por com para é do da não se no na dos ao mais foi são"),
    _language("àèéìòùîí", "di il la le e che un una in per con non è del della si da i al dei sono come più nel gli"),
    _language("éëïóöüèáê", "de het een en van is dat niet op te zijn voor met die aan er om ook naar in ik je"),
    _language("æøåéäö", "og i at er en det den til på som for af av de med ikke har et kan vi var å jeg"),
    _language("åäöéü", "och i att är en det som på för av med den till inte har om ett de kan jag du"),
    _language("åäöšž", "ja on ei se että ovat oli joka mutta myös kun niin tai hän ole voi sen en ne"),
    _language("áðéíóúýþæö", "og að í er á sem til um við en það var ekki fyrir með af"),
    _language(
        "áčďéěíňóřšťúůýžöü", "a je se na v že to s z do o i k jsou pro jako ale který by při od není být si ve tak jak"
    ),
    _language(
        "áäčďéíĺľňóôŕšťúýžöü", "a je sa na v že to s z do o i k sú pre ako ale ktorý by pri od nie byť si vo tak"
    ),
    _language("ąćęłńóśźż", "i w na z się do nie to jest że o jak po za od dla przez są oraz przy a co ale ze go"),
    _language("áéíóöőúüű", "a az és hogy nem is egy ez van meg de csak vagy ha már kell volt ki el mint"),
    _language("ăâîșțşţ", "și şi de la în a cu nu care pe un o din pentru este că sunt mai prin sa să se al ale"),
    _language("čćđšž", "i je u na se da za su od s a o kao koji nije ne što bi sa iz to in v so ki z pa po tudi kot"),
    _language("çğıİöşüâîû", "ve bir bu için ile da de çok olarak daha olan gibi var ne ama değil kadar o en sonra her"),
    _language("ąčęėįšųūž", "ir yra kad su į iš tai kaip bet ar už buvo o ne nuo per"),
    _language("āčēģīķļņšūž", "un ir ar no par kas uz bet kā tas pie to vai ka"),
    _language("äöõüšž", "ja on ei et see oli kui mis ka ning või aga ta"),
    _language(
        "", "yang dan di dari untuk dengan ini itu pada tidak dalam adalah akan ke oleh atau bisa anda juga saya"
    ),
    _language("", "et in est non ad cum ut sed qui per quod dolor sit amet ab ex vel aut"),
    _language("", "ya na wa kwa ni katika za la kama hii hiyo cha ang ng sa mga ay at para"),
    _language("àçèéíïòóúü", "de la el i que a en les per amb és un una del els no es"),
)

FREQUENT = {
    "cyrillic": (frozenset("оеаинтсрвлк"), 0.62),
    "greek": (frozenset("αοιετσςνηυρπκ"), 0.68),
    "hebrew": (frozenset("יוהלאתבשמרנ"), 0.62),
    "arabic": (frozenset("اليينموتربعدةه"), 0.62),
    "thai": (frozenset("านรอกเงมยลวดทส่้ัีิ"), 0.7),
    "hangul": (frozenset("이다는의가을에고지한하로기은서를도사인시대수나어리"), 0.2),
    "han": (
        frozenset(
            "的一是不了在有人我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多"
            "经么去法学如都同现当没动面起看定天分还进好小部其些主样理心本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性"
            "知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世"
            "這個們來為國說時會對發過後裡種經麼學現當沒動進樣開從實軍與長機關點業將兩間問戰頭體見產話給網請訂單貨退件電"
            "包软件档版数据系统命令安装文件目录件號碼數據統檔請設置品客户订单"
        ),
        0.22,
    ),
    "kanji": (
        frozenset(
            "日一人大国年会本中長出三同時政事自行社見月分議後前民生連五発間対上部東者党地合市業内相方四定今回新場金員九入選立開手米力学問"
            "高代明実円関決子動京全目表戦経通外最言氏現理調体化田当八六約主題下首意法不来作性的要用制治度務強気小七成期公野協取都和統以機"
            "品商件版文書使名数次変更設示場合必利可編集"
        ),
        0.2,
    ),
}
"""Of a script, the characters that a text mostly consists of, and the least share of them in a right decoding."""

SAMPLE_CHARACTERS = 8_000
"""Characters that are looked at: lines with letters beyond ASCII, from all over a long text."""

PROBE_CHARACTERS = 800
"""Characters that show most wrong decodings, in a tenth of the time."""

STOP_WORD_SHARE = 0.08
"""Share of function words by which a language is certain; usual text has twice that."""

SUREST = 3.0
"""Highest confidence: of two certain readings, the one with more function words is better."""

ENOUGH_WORDS = 3
"""Different function words that a certain language needs: single ones occur in any text."""

UNSURE_WORD = 0.2
"""Confidence for each function word where there are fewer."""

ODD_WEIGHT = 12.0
"""Confidence lost per share of odd characters: one in twelve leaves none."""

FOREIGN_WEIGHT = 4.0
"""Confidence lost per share of foreign letters: names of people and places are a few in a hundred."""

ENOUGH_SIGNS = 12
"""Characters of an East Asian script by which it is certain."""

ENOUGH_LETTERS = 24
"""Letters beyond ASCII by which a script without function words is certain; fewer lower the confidence."""


CONTROL_FACTOR = 0.6
"""Factor for control characters between 0x80 and 0x9F, which only wrong decodings have."""

SOUP_SHARE = 0.08
"""Share of invisible characters from which a text is not what the page shows."""

TELLING_LETTERS, TELLING_WORDS = 3, 40
"""Shorter words occur in many languages; fewer words may be names and part numbers."""

LEAST_VOWELS = 0.3
"""Share of vowels in any language; a substitution cipher has about a quarter."""

ENOUGH_TO_JUDGE = 200
"""Characters; a shorter text may be a list of part numbers."""

_NO_CHARACTER = frozenset({"Co", "Cn", "Cs", "Cc"})
_GLYPH_NUMBER = re.compile(r"\(cid:\d+\)|/(?:g|G|glyph|uni)[0-9A-Fa-f]{2,4}\b")
_VOWEL = re.compile("[aeiouy]")
_CONTROL = re.compile("[\x80-\x9f]")
_UNSPEAKABLE = re.compile("^[ъыьЪЫЬ]|^[бвгджзйклмнпрстфхцчшщ]{4,}$|ς(?=[α-ω])|ΰ|^[Α-Ωα-ω][α-ω]{4,}$")
"""Words without a vowel, or in Greek without an accent, and letters where their language does not put them."""

_ADDRESS = re.compile(r"(?:https?:|www\.)[\x21-\x7e]+")
_RUN = re.compile("[^\x00-\x7f]{4,}")
_SYMBOLS = frozenset("©®™°±×÷€£¥§→←↑↓■□●○◆◇★☆▲△▼▽※〒♪①②③④⑤⑥⑦⑧⑨⑩㈱№℃µ")
"""Usual ones; others, such as frames and Greek capitals of old DOS, are odd."""

_WORD = re.compile(r"[^\W\d_]+(?:[’'‘·][^\W\d_]+)*")
_IN_WORD = frozenset("’'‘·-‐‑–—\u00ad\u200c\u200d/…•×*&@+=|~^_")
_SCRIPTS = (
    ("latin", 0x00AA, 0x024F), ("latin", 0x1E00, 0x1EFF), ("greek", 0x0370, 0x03FF), ("cyrillic", 0x0400, 0x052F),
    ("hebrew", 0x0590, 0x05FF), ("arabic", 0x0600, 0x06FF), ("thai", 0x0E00, 0x0E7F), ("hangul", 0x1100, 0x11FF),
    ("kana", 0x3040, 0x30FF), ("jamo", 0x3130, 0x318F), ("han", 0x3400, 0x9FFF), ("hangul", 0xAC00, 0xD7A3),
    ("han", 0xF900, 0xFAFF), ("halfkana", 0xFF66, 0xFF9F), ("han", 0x20000, 0x2FFFF),
)  # fmt: skip
_WIDE = {"kana", "han", "hangul", "jamo", "halfkana"}


def confidence(text: str, *, japanese: bool | None = None) -> float:
    """The confidence that `text` is decoded right: 0 wrong, 1 certain, up to 3.

    ASCII has 1. `japanese` says whether the encoding is Japanese: Chinese and Korean ones have kana in the same place.
    """
    sample = _sample(text)
    letters = Counter(script(character) for character in sample if ord(character) > 0x7F)  # noqa: PLR2004 - ASCII
    beyond = letters.total()
    if not beyond:
        return 1.0
    if _is_hopeless(sample[:PROBE_CHARACTERS]):
        return 0.0
    sure = max(0.0, 1.0 - ODD_WEIGHT * _odd(sample) / beyond) * (CONTROL_FACTOR if _CONTROL.search(text) else 1.0)
    found = {name: count for name, count in letters.items() if name}
    if not sure or not found:
        return sure * (_latin(sample) if sure else 0.0)
    wide = sum(count for name, count in found.items() if name in _WIDE)
    if wide * 2 > sum(found.values()):
        return sure * _east_asian(sample, found, japanese=japanese)
    main = max(found, key=lambda name: found[name])
    return sure * (_latin(sample) if main == "latin" else _alphabetic(sample, main, found))


def _is_hopeless(probe: str) -> bool:
    """Whether the beginning is so odd that the rest does not matter."""
    beyond = sum(not character.isascii() for character in probe)
    return beyond > PROBE_CHARACTERS // 10 and _odd(probe) * ODD_WEIGHT / 2 > beyond


def oddity(text: str) -> float:
    """The share of odd characters among those beyond ASCII."""
    sample = _sample(text)
    beyond = sum(not character.isascii() for character in sample)
    return _odd(sample) / beyond if beyond else 0.0


def is_unreadable(text: str) -> bool:
    """Whether a PDF's text is glyph numbers, private characters or a cipher."""
    sample = _spread(text)
    shown = "".join(sample.split())
    bad = sum(character == "\ufffd" or unicodedata.category(character) in _NO_CHARACTER for character in shown)
    bad += sum(map(len, _GLYPH_NUMBER.findall(shown)))
    if bad > SOUP_SHARE * len(shown) or (len(shown) >= ENOUGH_TO_JUDGE and _odd(sample) > SOUP_SHARE * len(shown)):
        return True
    words = [word.lower() for word in _WORD.findall(sample)]
    latin = [word for word in words if word.isascii() and len(word) >= TELLING_LETTERS]
    if len(latin) * 2 < len(words) or len(latin) < TELLING_WORDS:
        return False
    known = sum(any(word in language.words for language in LANGUAGES) for word in latin)
    letters = "".join(latin)
    return known * 100 < len(latin) and len(_VOWEL.findall(letters)) < LEAST_VOWELS * len(letters)


def _spread(text: str) -> str:
    """Parts from all over the text."""
    if len(text) <= SAMPLE_CHARACTERS:
        return text
    step, part = len(text) // 10, SAMPLE_CHARACTERS // 10
    return "\n".join(text[start : start + part] for start in range(0, len(text) - part + 1, step))


@lru_cache(maxsize=70_000)
def script(character: str) -> str:
    """The script of a letter beyond ASCII, or nothing."""
    code = ord(character)
    for name, first, last in _SCRIPTS:
        if first <= code <= last:
            is_mark = name in {"thai", "hebrew", "arabic"} and unicodedata.category(character) == "Mn"
            return name if is_mark or unicodedata.category(character)[0] == "L" else ""
    return ""


def _sample(text: str) -> str:
    lines = [line for line in _ADDRESS.sub(" ", text).split("\n") if not line.isascii()]
    return _spread("\n".join(lines))


def _odd(text: str) -> float:
    """The number of characters in places where no writer puts them."""
    padded = f" {text} "
    places = (at for at, character in enumerate(padded) if not character.isascii())
    odd = sum(_is_odd(padded[at], padded[at - 1], padded[at + 1]) for at in places)
    return odd + sum(map(_odd_word, _WORD.findall(text))) + sum(map(_odd_run, _RUN.findall(text)))


def _is_odd(character: str, before: str, after: str) -> bool:
    category = unicodedata.category(character)
    if category in _NO_CHARACTER or character == "\ufffd":
        return True
    if category[0] in "SNP":
        return _is_odd_sign(character, category, before, after)
    if category == "Mn":
        return script(before) != script(character)
    if category == "Lu":
        return before.islower()
    if script(character) == "han":
        return before.isascii() and before.isalpha() and after.isascii() and after.islower()
    return False


def _is_odd_sign(character: str, category: str, before: str, after: str) -> bool:
    """Whether a symbol, a number or a mark belongs to no text at this place."""
    if _narrow(before) and (category == "Sc" or character in "¿¡"):  # sums end with a digit
        return True
    if category in {"So", "Sm", "Sc"} and character not in _SYMBOLS:
        return _narrow(before) or _narrow(after)
    return character not in _IN_WORD and _narrow(before) and _narrow(after)


def _odd_run(run: str) -> float:
    """The number of odd characters in a run of letters and marks beyond ASCII."""
    kinds = {script(character) for character in run}
    return len(run) if kinds == {"", "latin"} else 0.0


def _narrow(character: str) -> bool:
    return character.isalpha() and (character.isascii() or script(character) not in {*_WIDE, "", "thai"})


def _odd_word(word: str) -> float:
    """The number of odd characters in a word of two alphabets or many accents."""
    if word.isascii():
        return 0
    scripts = {"latin" if character.isascii() else script(character) for character in word if character.isalpha()}
    narrow = scripts - _WIDE - {"", "thai"}
    if narrow in ({"cyrillic"}, {"greek"}):
        return len(word) if _UNSPEAKABLE.search(word) else 0
    if len(narrow) > 1:
        return sum(not character.isascii() for character in word) / 2
    if narrow == {"latin"} and not scripts & _WIDE:
        return sum(len(run[0]) for run in re.finditer(r"[^\x00-\x7f’‘·]{4,}", word))
    return 0


def _latin(text: str) -> float:
    words = [word.lower() for word in _WORD.findall(text)]
    letters = Counter(
        character for word in words for character in word if not character.isascii() and character.isalpha()
    )
    if not words:
        return 0.0
    return max(_in_language(words, letters, language) for language in LANGUAGES)


def _in_language(words: list[str], letters: Counter[str], language: Language) -> float:
    hits = sum(word in language.words for word in words)
    distinct = len(language.words.intersection(words))
    most = SUREST if distinct >= ENOUGH_WORDS else distinct * UNSURE_WORD
    foreign = sum(count for letter, count in letters.items() if letter not in language.letters)
    share = foreign / letters.total() if letters else 0.0
    return min(most, hits / len(words) / STOP_WORD_SHARE) * max(0.0, 1.0 - FOREIGN_WEIGHT * share)


def _alphabetic(text: str, name: str, found: dict[str, int]) -> float:
    frequent, least = FREQUENT[name]
    written = [character for character in text if script(character) == name]
    own = list(map(_bare, written))
    share = sum(character in frequent for character in own) / len(own)
    rare = sum(character in RARE for character in own) / len(own)
    others = 1 - found[name] / sum(found.values())
    share -= 2 * max(0.0, rare - RARE_SHARE)
    if sum(map(str.isupper, written)) * 2 > len(written):
        share *= SHOUTED  # KOI8-R and Windows-1251 swap capitals and small letters
    return _above(share, least) * min(1.0, len(own) / ENOUGH_LETTERS) * max(0.0, 1 - FOREIGN_WEIGHT * others)


SHOUTED = 0.8
"""What is left of the share of frequent letters in a text of capitals."""

KANA_SHARE = 0.1
"""Of an East Asian text, from which it is Japanese: Chinese quotes a name at most."""

RARE, RARE_SHARE = frozenset("щэцфђѓѕљњћќџґ"), 0.05
"""Letters that no Cyrillic language uses often, and at most how often."""


def _bare(character: str) -> str:
    """The letter in lower case and without accents."""
    return unicodedata.normalize("NFD", character.lower())[0]


def _above(share: float, least: float) -> float:
    """From 0 at half of `least` to 1 at `least`."""
    return max(0.0, min(1.0, 2 * share / least - 1))


def _east_asian(text: str, found: dict[str, int], *, japanese: bool | None) -> float:
    total = sum(found.values())
    kana, hangul, half = (found.get(name, 0) / total for name in ("kana", "hangul", "halfkana"))
    size = min(1.0, total / ENOUGH_SIGNS) * max(0.0, 1 - 2 * half)
    han = [character for character in text if script(character) == "han"]
    if hangul * 2 > 1:
        return size * _share(text, "hangul") * (hangul if japanese is not True else 0.0)
    if kana > KANA_SHARE:
        return size * (_share(han, "kanji") if len(han) >= ENOUGH_SIGNS else 1.0) * (japanese is not False)
    return size * max(_share(han, "han"), _share(han, "kanji") if japanese else 0.0) if han else 0.0


def _share(text: str | list[str], name: str) -> float:
    frequent, least = FREQUENT[name]
    own = [character for character in text if script(character) in {name, "han" if name == "kanji" else name}]
    return _above(sum(character in frequent for character in own) / len(own), least) if own else 0.0
