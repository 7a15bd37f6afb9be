"""Maps the encoding names of web pages to Python's codecs, as browsers do (WHATWG Encoding Standard).

A label names the vendor's larger character set: gb2312 is gb18030, shift_jis is cp932, iso-8859-1 is windows-1252.
"""

from __future__ import annotations

import codecs

DETECTED = (
    "cp1252", "gb18030", "cp932", "big5hkscs", "cp949", "euc_jp", "cp1251", "koi8_r", "cp1250", "iso8859_2", "cp1253",
    "iso8859_7", "cp1254", "cp1255", "cp1256", "cp1257", "cp874", "iso8859_5", "iso8859_6", "iso8859_8", "iso8859_15",
    "koi8_u", "cp866", "mac_cyrillic", "mac_roman", "johab", "cp850", "cp852", "cp855",
)  # fmt: skip
"""What text without a label may be in, the more usual first."""

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
"""Labels that Python does not know, or takes for something else."""


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
    """The text of `content`; what is no character in `codec` becomes U+FFFD, a byte or a pair of bytes each."""
    if codec == "euc_jp":
        return content.decode(codec, "serve_app.vendor_rows")
    if codec == "big5hkscs":
        return min((content.decode(each, "replace") for each in ("big5hkscs", "cp950")), key=_faults)
    if codec == "gb18030" and b"\x80" in content:
        return content.decode(codec, "serve_app.gbk_euro")
    return content.decode(codec, "replace")


def _faults(text: str) -> int:
    return text.count("\ufffd")


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
