"""Text files and pages are decoded right or reported, and never garbled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.knowledge.document_reader import clean_text
from serve_app.knowledge.formats.text_decoding import UnreadableDocument, codec_of, decode_page, decode_text

if TYPE_CHECKING:
    from collections.abc import Callable

TEXTS = {
    "Die Rückgabefrist für Küchengeräte beträgt zwanzig Tage. Größere Geräte müssen zurückgeschickt werden.": [
        "cp1252"
    ],
    "Le délai de rétractation est de vingt jours après la réception. Le régime prévoit des délais étendus.": ["cp1252"],
    "El plazo de devolución es de veinte días y los gastos de envío son para el señor que compró.": ["cp1252"],
    "Срок возврата товара составляет тридцать четыре дня с момента получения.": [
        "cp1251",
        "koi8_r",
        "iso8859_5",
        "cp866",
    ],
    "返品の期限は商品到着後三十一日以内です。担当者は高橋です。": ["cp932", "euc_jp", "iso2022_jp"],
    "退货期限是收到货物之后的十七天，请联系我们的客户经理。": ["gb18030"],
    "退貨期限是收到貨物之後的十七天，請聯絡我們的客戶經理。": ["big5"],
    "반품 기한은 상품을 받은 날로부터 십칠 일이며 고객 센터에 문의하시기 바랍니다.": ["cp949"],
    "Lhůta pro vrácení zboží je třicet dní a začíná dnem, kdy jste zboží převzali, že ano.": ["cp1250", "iso8859_2"],
    "Termin zwrotu towaru to trzydzieści dni i nie może być dłuższy, ale jest też wyjątek.": ["cp1250", "iso8859_2"],
    "Η προθεσμία επιστροφής των προϊόντων είναι τριάντα ημέρες από την παραλαβή.": ["cp1253", "iso8859_7"],
    "מועד החזרת המוצר הוא שלושים יום מיום קבלתו אצל הלקוח": ["cp1255"],
}


REPORTED = "reported"


def read_or_reported(decode: Callable[[bytes], str], content: bytes) -> str:
    """The text, or that the bytes were reported with what to do."""
    try:
        return decode(content)
    except UnreadableDocument as error:
        return REPORTED if "--encoding" in str(error) else f"{REPORTED} without a remedy"


def test_a_text_is_read_right_in_each_of_its_encodings() -> None:
    found = {
        (codec, text[:20]): decode_text(text.encode(codec)) == text
        for text, codecs in TEXTS.items()
        for codec in codecs
    }
    assert [case for case, right in found.items() if not right] == []


@given(text=st.sampled_from(sorted(TEXTS)), start=st.integers(0, 60), size=st.integers(5, 100))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_no_part_of_a_text_is_garbled(text: str, start: int, size: int) -> None:
    part = text[start : start + size]
    for codec in TEXTS[text]:
        assert read_or_reported(decode_text, part.encode(codec)) in {part, REPORTED}


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_whatever_bytes_become_valid_text_or_are_reported(content: bytes) -> None:
    for decode in (decode_text, decode_page):
        clean_text(read_or_reported(decode, content)).encode()


def test_an_encoding_that_cannot_be_told_is_reported_and_can_be_named() -> None:
    content = "über".encode("cp1252")
    with pytest.raises(UnreadableDocument, match="convert it to UTF-8, or name its encoding with --encoding"):
        decode_text(content)
    assert decode_text(content, "windows-1252") == "über"
    with pytest.raises(UnreadableDocument, match="no encoding 'klingon'"):
        decode_text(content, "klingon")
    with pytest.raises(UnreadableDocument, match="not in the encoding utf-8"):
        decode_text(content, "utf-8")


def test_a_bad_byte_costs_a_character() -> None:
    text = "退款期限是收到货物之后的十七天，请联系我们的客户经理。" * 4
    assert decode_text(text.encode() + b"\xff") == f"{text}\ufffd"
    assert decode_text(text.encode("gb18030") + b"\xff") == f"{text}\ufffd"
    page = f'<meta charset="gb2312"><p>{text}'.encode("gb18030")
    assert decode_page(page + b"\xff") == page.decode("gb18030") + "\ufffd"
    assert decode_text(b"plain text " * 20 + b"\xe9!") == "plain text " * 20 + "\ufffd!"


def test_a_mark_says_the_encoding_whatever_the_page_declares() -> None:
    page = '<meta charset="gb2312"><p>Größe'
    for codec in ("utf-8-sig", "utf-16", "utf-32"):
        assert decode_page(page.encode(codec)) == page


def test_utf_16_without_a_mark_is_read_and_other_zeros_are_binary() -> None:
    assert decode_text("The size of it.".encode("utf-16-le")) == "The size of it."
    with pytest.raises(UnreadableDocument, match="binary"):
        decode_text(bytes(range(8)) * 9)


@pytest.mark.parametrize(
    ("label", "codec", "text"),
    [
        ("gb2312", "gb18030", "朱镕喆是客户经理，负责货运部。"),
        ("shift_jis", "cp932", "担当者は髙橋さんです。①㈱"),
        ("x-sjis", "cp932", "担当者は髙橋さんです。①㈱"),
        ("euc-kr", "cp949", "고객 센터 뷁 담당자는 펲시맨입니다"),
        ("big5", "cp950", "客戶經理碁銹負責貨運部裏的業務。"),
        ("iso-8859-1", "cp1252", "“The size – it’s 5 €”"),
        ("iso-8859-9", "cp1254", "Bu ürün için “garanti” süresi iki yıldır"),
        ("tis-620", "cp874", "ระยะเวลาการคืนสินค้าคือสามสิบวัน"),
        ("utf-16", "utf-8", "Größe der Dichtung"),
    ],
)
def test_a_declared_encoding_is_the_browsers(label: str, codec: str, text: str) -> None:
    page = f'<html><head><meta http-equiv="Content-Type" content="text/html; charset={label}"></head><p>{text}</p>'
    assert decode_page(page.encode(codec)) == page


def test_a_vendors_character_in_euc_jp_is_read() -> None:
    page = '<meta charset="euc-jp"><p>担当者は高橋さんです。'
    assert decode_page(page.encode("euc_jp") + b"\xad\xa1\xfc\xe2") == f"{page}①髙"


def test_a_page_that_is_valid_utf_8_is_utf_8_whatever_it_declares() -> None:
    page = '<meta charset="gb2312"><p>Größe: 退货期限'
    assert decode_page(page.encode()) == page


def test_a_page_that_declares_another_encoding_than_it_is_in_is_read_or_reported() -> None:
    for text, codecs in TEXTS.items():
        for label in ("utf-8", "iso-8859-1"):
            page = f'<meta charset="{label}"><p>{text}'
            for codec in codecs:
                assert read_or_reported(decode_page, page.encode(codec)) in {page, REPORTED}


def test_labels_are_known_as_browsers_know_them() -> None:
    assert [codec_of(label) for label in ("GBK", " Latin1 ", "ks_c_5601-1987", "windows-31j", "nonsense", "rot13")] == [
        "gb18030", "cp1252", "cp949", "cp932", None, None,
    ]  # fmt: skip


def test_halves_of_pairs_are_replaced_and_pairs_are_joined() -> None:
    assert clean_text("a\ud83d\ude00b\ud83dc\0") == "a😀b\ufffdc"
