"""Tables, spreadsheets, slides, mails and PDFs keep each value with its heading, or say why not."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from datetime import datetime
from email.message import EmailMessage
from typing import TYPE_CHECKING

import docx
import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pdf_writer import make_pdf
from pptx import Presentation
from pptx.util import Inches

from serve_app.knowledge.document_reader import read_document
from serve_app.knowledge.formats.html import to_markdown
from serve_app.knowledge.formats.text_decoding import UnreadableDocument

if TYPE_CHECKING:
    from pathlib import Path


def read(folder: Path, name: str, content: bytes | str) -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_document(path, name).text


def reason(folder: Path, name: str, content: bytes) -> str:
    with pytest.raises(UnreadableDocument) as raised:
        read(folder, name, content)
    return str(raised.value)


def table(*rows: str) -> str:
    head, *body = rows
    return "\n".join([head, "| " + " | ".join(["---"] * (head.replace("\\|", "").count("|") - 1)) + " |", *body])


SPANS = {
    "<tr><th>Part</th><th colspan=2>Torque</th></tr><tr><td rowspan=2>M8</td><td>25</td><td>26</td></tr>"
    "<tr><td>27</td><td>a|b</td></tr>": table("| Part | Torque | Torque |", "| M8 | 25 | 26 |", "| M8 | 27 | a\\|b |"),
    "<thead><tr><th rowspan=2>Part</th><th colspan=2>Torque</th></tr><tr><th>dry</th><th>oiled</th></tr></thead>"
    "<tbody><tr><td>M8</td><td>25</td><td>20</td></tr><tr><td>M9</td><td colspan=2>80</td></tr></tbody>": table(
        "| Part | Torque dry | Torque oiled |", "| M8 | 25 | 20 |", "| M9 | 80 | 80 |"
    ),
    "<caption>Torques</caption><tr><th>a</th><th>b</th></tr><tr><td>1</td></tr>": "Torques\n\n"
    + table("| a | b |", "| 1 |  |"),
    "<tr><td colspan=2>All</td></tr><tr><td>a</td><td>b</td></tr><tr><td>1</td><td>2</td></tr>": "All\n\n"
    + table("| a | b |", "| 1 | 2 |"),
    "<tr><td rowspan=0>x</td><td>1</td></tr><tr><td>2</td></tr>": table("| x | 1 |", "| x | 2 |"),
    "<tr><td rowspan=99999 colspan=99999>x</td></tr><tr><td>y</td></tr>": table("| x |  |", "| x | y |"),
    "<tr></tr>": "",
}


def test_spans_put_each_value_under_its_heading() -> None:
    found = {page: to_markdown(f"<table>{page}</table>")[1] for page in SPANS}
    assert {page: text for page, text in found.items() if not text.startswith(SPANS[page])} == {}


cell = st.tuples(st.integers(1, 3), st.integers(1, 3))


@given(st.lists(st.lists(cell, min_size=1, max_size=4), min_size=1, max_size=5))
@settings(deadline=None)
def test_no_value_is_lost_and_all_rows_are_of_one_width(rows: list[list[tuple[int, int]]]) -> None:
    names = iter(f"v{number}v" for number in range(99))
    cells = [[(next(names), wide, high) for wide, high in row] for row in rows]
    written = "".join(
        "<tr>" + "".join(f"<td colspan={wide} rowspan={high}>{name}</td>" for name, wide, high in row) + "</tr>"
        for row in cells
    )
    text = to_markdown(f"<table>{written}</table>")[1]
    assert all(name in text for row in cells for name, _, _ in row)
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) <= 1


def test_deep_nesting_costs_structure_and_no_text() -> None:
    for opening in ("<b><i>", "<div>", "<ul><li>", "<table><tr><td>", "<blockquote>"):
        text = to_markdown(f"<p>before</p>{opening * 3000}deep")[1]
        assert "before" in text
        assert "deep" in text


def test_word_tables_keep_spans_and_bars(tmp_path: Path) -> None:
    word = docx.Document()
    made = word.add_table(rows=3, cols=3)
    for number, each in enumerate(made._cells):
        each.text = f"c|{number}"
    made.cell(0, 1).merge(made.cell(0, 2)).text = "Torque"
    made.cell(1, 0).merge(made.cell(2, 0)).text = "M8"
    word.save(str(tmp_path / "a.docx"))
    assert read_document(tmp_path / "a.docx", "a.docx").text == table(
        "| c\\|0 | Torque | Torque |", "| M8 | c\\|4 | c\\|5 |", "| M8 | c\\|7 | c\\|8 |"
    )


def test_separated_values_are_a_table_whatever_separates_them(tmp_path: Path) -> None:
    wanted = table("| Teil | Preis |", "| Düse | 1,50 |", "| a\\|b | 2 |")
    assert read(tmp_path, "a.csv", 'Teil;Preis\nDüse;1,50\n\n"a|b";2\n') == wanted
    assert read(tmp_path, "a.csv", 'Teil,Preis\r\nDüse,"1,50"\r\na|b,2\r\n') == wanted
    assert read(tmp_path, "a.tsv", "Teil\tPreis\nDüse\t1,50\na|b\t2\n") == wanted
    assert read(tmp_path, "a.csv", 'sep=;\nTeil;Preis\nDüse;1,50\n"a|b";2\n') == wanted
    assert read(tmp_path, "a.csv", "Teil\nDüse\n") == table("| Teil |", "| Düse |")


@given(
    st.lists(
        st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=2, max_size=4), min_size=1, max_size=6
    )
)
@settings(deadline=None)
def test_any_separated_values_keep_a_row_in_a_line(rows: list[list[str]]) -> None:
    from serve_app.knowledge.formats.tables import sheet_to_markdown, to_markdown

    lines = to_markdown(rows).splitlines()
    assert len({line.replace("\\|", "").count("|") for line in lines}) <= 1
    assert "\0" not in sheet_to_markdown(rows, 3) or any("\0" in cell for row in rows for cell in row)


def test_a_workbook_is_read_by_sheets_with_merged_cells_and_shown_values(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Prices"
    rows = [
        ["Price list 2026"], [], ["Part", "Price", "Share", "Since"], ["Seal|ring", 12.5, 0.25, datetime(2026, 1, 2)],  # noqa: DTZ001
        [None, 100, 1, True], [], ["Terms"], ["Days", "Discount"], [14, "2%"], ["=1+1", "none"],
    ]  # fmt: skip
    for row in rows:
        sheet.append(row)
    sheet["C4"].number_format = "0%"
    sheet.merge_cells("A4:A5")
    sheet.merge_cells("A1:D1")
    hidden = book.create_sheet("Hidden")
    hidden.append(["secret"])
    hidden.sheet_state = "hidden"
    book.save(tmp_path / "a.xlsx")
    first = table(
        "| Part | Price | Share | Since |",
        "| Seal\\|ring | 12.5 | 25% | 2026-01-02 |",
        "| Seal\\|ring | 100 | 1 | TRUE |",
    )
    second = table("| Days | Discount |", "| 14 | 2% |", "| =1+1 | none |")
    assert read_document(tmp_path / "a.xlsx", "a").text.endswith(f"{first}\n\n### Terms\n\n{second}")
    assert "Price list 2026" in read_document(tmp_path / "a.xlsx", "a").text
    assert "secret" not in read_document(tmp_path / "a.xlsx", "a").text


def test_slides_are_read_with_tables_and_notes(tmp_path: Path) -> None:
    deck = Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "Seals"
    slide.placeholders[1].text = "One\nTwo"
    slide.notes_slide.notes_text_frame.text = "Show it"
    made = slide.shapes.add_table(2, 2, 0, 0, Inches(3), Inches(1)).table
    for number, text in enumerate(["Part", "No.", "Ring", "7"]):
        made.cell(number // 2, number % 2).text = text
    deck.save(str(tmp_path / "a.pptx"))
    wanted = ["## Seals", "- One\n- Two", table("| Part | No. |", "| Ring | 7 |"), "Notes: Show it"]
    assert read_document(tmp_path / "a.pptx", "a").text == "\n\n".join(wanted)


def mail() -> EmailMessage:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = "Rückgabe 退货", "Ann <a@example.org>", "b@example.org"
    message.set_content("Hallo\n# kein Titel\n-- \nAnn")
    message.add_alternative("<p>Hallo", subtype="html")
    message.add_attachment(b"a,b\n1,2\n", maintype="text", subtype="csv", filename="t.csv")
    message.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="p.png")
    return message


def test_a_mail_is_read_with_its_attachments(tmp_path: Path) -> None:
    text = read(tmp_path, "a.eml", mail().as_bytes())
    assert text.startswith(
        "# Rückgabe 退货\n\n- From: Ann <a@example.org>\n- To: b@example.org\n\nHallo\n\\# kein Titel"
    )
    assert f"## Attachment: t.csv\n\n{table('| a | b |', '| 1 | 2 |')}" in text
    assert "Attachment p.png, not read: no reader for '.png' files" in text


def test_a_mails_body_is_read_in_the_browsers_encoding(tmp_path: Path) -> None:
    head = (
        b"Subject: x\r\nFrom: a\r\nContent-Type: text/plain; charset=gb2312\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    )
    assert read(tmp_path, "a.eml", head + "客户经理朱镕喆负责退货。".encode("gbk")).endswith("客户经理朱镕喆负责退货。")


def test_broken_files_of_all_kinds_say_why(tmp_path: Path) -> None:
    wanted = {"xlsx": "Excel workbook", "pptx": "PowerPoint presentation", "docx": "Word document", "eml": "no e-mail"}
    for kind, what in wanted.items():
        assert what in reason(tmp_path, f"a.{kind}", b"PK\x03\x04 broken")
        assert what in reason(tmp_path, f"a.{kind}", b"PK\x05\x06" + bytes(18))


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.knowledge.document_reader.UNPACKED_BYTES", 1000)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", "x" * 100_000)
    assert "unpacks to more" in reason(tmp_path, "a.docx", packed.getvalue())


@given(
    st.binary(max_size=200),
    st.sampled_from([".csv", ".xlsx", ".pptx", ".docx", ".eml", ".pdf", ".html", ".md", ".txt"]),
)
@settings(deadline=None)
def test_whatever_a_file_holds_it_is_read_or_reported(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, kind: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{kind}"
    path.write_bytes(content)
    with suppress(UnreadableDocument):
        read_document(path, "any").text.encode()


LINE = "The pump is pressed onto the shaft and then secured with the ring that is in the box."


def test_a_pdf_half_of_whose_pages_have_no_text_is_reported(tmp_path: Path) -> None:
    scan = make_pdf([[LINE], [LINE], []]).replace(
        b"BT /F1 10 Tf 14 TL 50 800 Td  ET", b"0 0 300 300 re f 10 10 m 9 9 l S "
    )
    assert LINE in read(tmp_path, "a.pdf", scan)
    scan = make_pdf([[LINE], []]).replace(b"BT /F1 10 Tf 14 TL 50 800 Td  ET", b"0 0 300 300 re f 10 10 m 9 9 l S ")
    assert "1 of its 2 pages have no text" in reason(tmp_path, "a.pdf", scan)
    assert LINE in read(tmp_path, "a.pdf", make_pdf([[LINE], []])), "an empty page is no scan"


def test_a_pdf_whose_letters_are_a_cipher_is_reported(tmp_path: Path) -> None:
    subset = "".join(chr(ord(letter) - 29) if letter.isalpha() else letter for letter in LINE)  # as Word numbers glyphs
    assert "not what its pages show" in reason(tmp_path, "a.pdf", make_pdf([[subset] * 9]))
    glyphs = r"\(cid:12\)\(cid:7\) " * 9
    assert "not what its pages show" in reason(tmp_path, "a.pdf", make_pdf([[glyphs] * 9]))
    codes = [" ".join(f"XK{n}-{n * 7}B" for n in range(9))] * 9
    assert "XK3" in read(tmp_path, "a.pdf", make_pdf([codes])), "a list of part numbers is no cipher"
