"""Decodes the bytes of text files and web pages: correctly, or not at all.

The order: a byte order mark, UTF-8, what the page declares, detection. A detected encoding counts only where the text
is evidently a language's, and no other encoding gives another text that is as evident.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from html import unescape

from serve_app.knowledge.formats.language_detection import confidence, oddity

DETECTED = (
    "cp1252", "gb18030", "cp932", "big5hkscs", "cp949", "euc_jp", "cp1251", "koi8_r", "cp1250", "iso8859_2", "cp1253",
    "iso8859_7", "cp1254", "cp1255", "cp1256", "cp1257", "cp874", "iso8859_5", "iso8859_6", "iso8859_8", "iso8859_15",
    "koi8_u", "cp866", "mac_cyrillic", "mac_roman", "johab", "cp850", "cp852", "cp855",
)  # fmt: skip
"""Encodings of text without a label, the more usual first."""

MULTI_BYTE = ("gb18030", "cp932", "big5hkscs", "cp949", "euc_jp")
JAPANESE = frozenset({"cp932", "euc_jp", "iso2022_jp_ext"})
OTHER_EAST_ASIAN = frozenset({"gb18030", "big5hkscs", "cp949", "johab"})

_BROWSERS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "hz": "hz",
    "shift_jis": "cp932",
    "shift_jisx0213": "cp932",
    "shift_jis_2004": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "cp950": "big5hkscs",
    "iso2022_jp": "iso2022_jp_ext",
    "iso2022_jp_1": "iso2022_jp_ext",
    "iso2022_jp_2": "iso2022_jp_ext",
    "koi8-u": "koi8_u",
    # what a page cannot be in, as its label was read byte by byte
    "utf-16": "utf-8",
    "utf-16-le": "utf-8",
    "utf-16-be": "utf-8",
    "utf-32": "utf-8",
    "utf-8-sig": "utf-8",
}
"""Python's name of a codec -> the codec that browsers use in its place."""

_LABELS = {
    "x-sjis": "cp932",
    "sjis": "cp932",
    "windows-31j": "cp932",
    "x-ms-cp932": "cp932",
    "x-euc-jp": "euc_jp",
    "x-gbk": "gb18030",
    "gb_2312-80": "gb18030",
    "x-x-big5": "big5hkscs",
    "cn-big5": "big5hkscs",
    "cn-gb": "gb18030",
    "windows-936": "gb18030",
    "windows-949": "cp949",
    "ks_c_5601-1987": "cp949",
    "ks_c_5601-1989": "cp949",
    "ksc_5601": "cp949",
    "korean": "cp949",
    "dos-874": "cp874",
    "windows-874": "cp874",
    "x-cp1250": "cp1250",
    "x-cp1251": "cp1251",
    "x-cp1252": "cp1252",
    "macintosh": "mac_roman",
    "x-mac-roman": "mac_roman",
    "x-mac-cyrillic": "mac_cyrillic",
    "x-mac-ukrainian": "mac_cyrillic",
    "koi": "koi8_r",
    "koi8": "koi8_r",
    "koi8-ru": "koi8_u",
    "logical": "iso8859_8",
    "visual": "iso8859_8",
    "iso-8859-8-i": "iso8859_8",
    "iso-8859-8-e": "iso8859_8",
    "iso-8859-6-i": "iso8859_6",
    "iso-8859-6-e": "iso8859_6",
    "x-user-defined": "cp1252",
    "unicode": "utf-8",
    "x-unicode20utf8": "utf-8",
    "unicode-1-1-utf-8": "utf-8",
}
"""Labels that Python does not know, or maps to another codec."""

FLOOR = 0.7
"""Least confidence for a detected encoding. Of 385 texts in 40 encodings it loses eight."""

BEYOND_DOUBT = 2.0
"""Confidence that needs no second opinion: function words of one language all over the text."""

MARGIN = 0.08
"""The share by which the best reading must exceed the next one that differs."""

DECLARED_FLOOR = 0.3
"""Least confidence for a declared encoding: it is right unless the text looks wrong."""

ODD = 0.06
"""Share of odd characters from which a declared encoding is in doubt."""

OUT_OF_USE = 0.7
"""Factor for the encodings of DOS, which are long out of use."""

BINARY = 20
"""More zero bytes than one in so many make a file binary; fewer are damage."""

DETECTION_BYTES = 50_000
"""Bytes that are looked at to find the encoding; lines beyond ASCII decide."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UNMARKED_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
_DECLARATION = re.compile(
    rb"""<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w:.-]{2,40})|charset\s*=\s*["']?\s*([\w:.-]{2,40})""", re.IGNORECASE
)
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_SEVEN_BIT = (
    (re.compile(rb"\x1b\$\)C"), "iso2022_kr"),
    (re.compile(rb"\x1b\$[@B]|\x1b\$\(D"), "iso2022_jp_ext"),
    (re.compile(rb"~\{(?:[\x21-\x77][\x21-\x7e]){2,}~\}"), "hz"),
)
_HEAD_BYTES = 4096
_NOT_TEXT = re.compile(r"(?is)<(script|style)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)|<!\[CDATA\[|\]\]>|<[^<>]*>")
_MEND = "convert it to UTF-8, or name its encoding with --encoding"


class UnreadableDocument(Exception):
    """A file without readable text; the message says why, for the file's owner."""


def decode_text(content: bytes, encoding: str | None = None) -> str:
    """The text of a file, in `encoding` if there is one.

    Raises:
        UnreadableDocument: it is binary, or its encoding cannot be told for sure.
    """
    if (text := _certain(content, encoding)) is not None:
        return text
    if (found := _detected(content)) is not None:
        return decode(content, found.codec)
    text = content.decode("utf-8", "replace")
    if _faults(text) <= 2 and _faults(text) * 100 <= len(text):  # noqa: PLR2004 - a damaged byte or two
        return text
    raise UnreadableDocument(f"its encoding cannot be told for sure: {_MEND}")


def decode_page(content: bytes, encoding: str | None = None) -> str:
    """The markup of a web page, in `encoding`, else in the declared one.

    Raises:
        UnreadableDocument: it is binary, or its encoding cannot be told for sure.
    """
    if (text := _certain(content, encoding)) is not None:
        return text
    return _labelled(content, _declared(content))


def decode_labelled(content: bytes, label: str | None) -> str:
    """The text of a part of a mail, in the encoding `label` if that fits.

    Raises:
        UnreadableDocument: it is binary, or its encoding cannot be told for sure.
    """
    text = _certain(content, None)
    return _labelled(content, label) if text is None else text


def _labelled(content: bytes, label: str | None) -> str:
    codec = codec_of(label) if label else None
    if codec is None:
        return decode_text(content)
    text = decode(content, codec)
    few = _faults(text) <= max(2, len(_beyond(text)) // 50)
    shown = _visible_text(text)
    sure = confidence(shown, japanese=_japanese(codec)) if few else 0.0
    found = _detected(content)
    if found is not None and found.rate > 2 * sure:
        return decode(content, found.codec)
    is_right = sure >= DECLARED_FLOOR or oddity(shown) <= ODD
    if (few and is_right) or (codec == "utf-8" and _faults(text) * 100 <= len(shown)):
        return text
    raise UnreadableDocument(f"it declares the encoding {label!r}, and its text is in another one: {_MEND}")


def _certain(content: bytes, encoding: str | None) -> str | None:
    """The text where nothing has to be guessed."""
    for mark, name in _MARKS:
        if content.startswith(mark):
            return content.decode(name, "replace")
    if encoding is not None:
        codec = encoding if encoding.lower().startswith(("utf-16", "utf-32", "utf16", "utf32")) else codec_of(encoding)
        if codec is None:
            raise UnreadableDocument(f"there is no encoding {encoding!r}")
        text = decode(content, codec)
        if _faults(text) * 20 > len(text):
            raise UnreadableDocument(f"it is not in the encoding {encoding}")
        return text
    if b"\0" in content and (wide := _wide(content)) is not None:
        return wide
    if content.count(0) * BINARY > len(content):
        raise UnreadableDocument(
            "it is binary, not text; or in UTF-16 without a mark, which --encoding utf-16-le names"
        )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("utf-8", "replace")
        beyond = sum(not character.isascii() for character in text)
        return text if _faults(text) * 20 <= beyond else None
    if text.isascii():
        return next((decode(content, codec) for mark, codec in _SEVEN_BIT if mark.search(content)), text)
    return text


def _wide(content: bytes) -> str | None:
    """The text of UTF-16 or UTF-32 without a mark, where it is that beyond doubt."""
    for name in _UNMARKED_WIDE:
        try:
            text = content.decode(name)
        except UnicodeDecodeError:
            continue
        if not re.search("[\0-\x08\x0e-\x1f]", text) and confidence(text) >= FLOOR and not _lacks_ascii(text):
            return text
    return None


def _lacks_ascii(text: str) -> bool:
    """Whether the text has no ASCII: text of any script has spaces."""
    return not any(character.isascii() for character in text)


def _declared(content: bytes) -> str | None:
    found = _DECLARATION.search(_COMMENT.sub(b"", content[:_HEAD_BYTES]))
    return (found[1] or found[2]).decode("ascii") if found else None


def _visible_text(markup: str) -> str:
    """About what a reader sees of a page."""
    return unescape(_NOT_TEXT.sub(" ", markup))


def _japanese(codec: str) -> bool | None:
    return True if codec in JAPANESE else False if codec in OTHER_EAST_ASIAN else None


@dataclass(frozen=True, slots=True)
class _Reading:
    """A text that the bytes may mean, and how evident it is."""

    codec: str
    text: str
    rate: float


def _detected(content: bytes) -> _Reading | None:
    """The reading that is certainly language; None for none or several."""
    sample = _telling(content.replace(b"\0", b""))
    ranked = sorted(_readings(sample), key=lambda each: -each.rate)
    if not ranked or ranked[0].rate < FLOOR:
        return None
    if ranked[0].rate < BEYOND_DOUBT and ranked[0].codec not in _plausible(sample):
        return None
    rivals = [each for each in ranked if each.rate > (1 - MARGIN) * ranked[0].rate]
    usual = min(rivals, key=lambda each: DETECTED.index(each.codec))
    if usual.codec == DETECTED[0] and not any(character.isalpha() for character in _beyond(usual.text)):
        return usual  # quotation marks and signs in English
    if all(_is_same(usual.text, each.text) for each in rivals):
        return usual
    return None


def _readings(sample: bytes) -> list[_Reading]:
    texts: dict[str, str] = {}
    for codec in DETECTED:
        text = decode(sample, codec)
        if _faults(text) * 100 <= len(_beyond(text)):
            texts.setdefault(text, codec)
    return [_Reading(codec, text, _rate(sample, text, codec)) for text, codec in texts.items()]


def _rate(content: bytes, text: str, codec: str) -> float:
    if codec == "big5hkscs" and not re.search(rb"[\xa1-\xf9][\x40-\x7e]", content):
        return 0.0  # two of five characters of Big5 end so, and none of EUC
    shown = _visible_text(text)
    rated = confidence(text if shown.isascii() else shown, japanese=_japanese(codec))
    return rated * (OUT_OF_USE if codec in ("cp850", "cp852") else 1.0)


def _is_same(one: str, other: str) -> bool:
    """Whether two readings differ in a few signs only."""
    differing = sum(a != b for a, b in zip(one, other, strict=False))
    return len(one) == len(other) and differing * 30 <= len(_beyond(one))


def _beyond(text: str) -> str:
    return "".join(character for character in text if not character.isascii())


def _telling(content: bytes) -> bytes:
    """The lines beyond ASCII, as many as are looked at."""
    lines: list[bytes] = []
    size = 0
    for line in content.splitlines(keepends=True):
        if not line.isascii():
            lines.append(line)
            size += len(line)
            if size > DETECTION_BYTES:
                break
    return b"".join(lines)


def _plausible(content: bytes) -> set[str]:
    """What charset-normalizer finds plausible, and East Asian encodings that a damaged byte would exclude."""
    from charset_normalizer import from_bytes

    found = {name for match in from_bytes(content, cp_isolation=list(DETECTED)) for name in match.could_be_from_charset}
    for codec in MULTI_BYTE:
        text = decode(content, codec)
        if _faults(text) * 100 <= len(_beyond(text)):
            found.add(codec)
    return found


def _faults(text: str) -> int:
    return text.count("\ufffd")


def codec_of(label: str) -> str | None:
    """The codec for a label in a page, or None where no browser knows it."""
    name = label.strip().lower().replace(" ", "")
    if name in _LABELS:
        return _LABELS[name]
    try:
        found = codecs.lookup(name)
        "".encode(found.name)  # text codecs only: Python also names rot13, zip and base64 so
    except (LookupError, ValueError, TypeError):
        return None
    return _BROWSERS.get(found.name, found.name)


def decode(content: bytes, codec: str) -> str:
    """The text of `content`; bytes that are no character in `codec` become U+FFFD."""
    if codec == "euc_jp":
        return content.decode(codec, "serve_app.vendor_rows")
    if codec == "big5hkscs":
        return min((content.decode(each, "replace") for each in ("big5hkscs", "cp950")), key=_faults)
    if codec == "gb18030" and b"\x80" in content:
        return content.decode(codec, "serve_app.gbk_euro")
    return content.decode(codec, "replace")


def _vendor_rows(error: UnicodeError) -> tuple[str, int]:
    """The characters that vendors added to EUC-JP, by their twins in Shift_JIS."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    pair = error.object[error.start : error.start + 2]
    if len(pair) == 2 and min(pair) > 0xA0 and max(pair) < 0xFF:  # noqa: PLR2004 - both bytes of EUC
        row, cell = pair[0] - 0xA1, pair[1] - 0xA1
        lead, trail = row // 2 + (0x81 if row < 62 else 0xC1), cell + (0x9F if row % 2 else 0x40)  # noqa: PLR2004
        try:
            return bytes([lead, trail + (row % 2 == 0 and trail >= 0x7F)]).decode("cp932"), error.start + 2  # noqa: PLR2004
        except UnicodeDecodeError:
            return "\ufffd", error.start + 2
    return "\ufffd", error.start + 1


def _gbk_euro(error: UnicodeError) -> tuple[str, int]:
    """The euro sign, which Windows wrote as the byte 0x80."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "€" if error.object[error.start] == 0x80 else "\ufffd", error.start + 1  # noqa: PLR2004


codecs.register_error("serve_app.vendor_rows", _vendor_rows)
codecs.register_error("serve_app.gbk_euro", _gbk_euro)
