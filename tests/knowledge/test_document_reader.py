"""A file's text arrives with its headings, and a broken file says why."""

from __future__ import annotations

import os
import time
from pathlib import Path

import docx
import pytest
from pdf_writer import make_pdf

from serve_app.knowledge.chunking import split_document
from serve_app.knowledge.document_reader import UnreadableDocument, read_document

MANUAL = Path("/usr/share/debian-reference")
PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html>
<html><head><title>Pumps &amp; valves</title><style>p {{}}</style><script>track()</script></head><body>
<nav><a href="/">Home</a></nav>
<div class="navheader"><table><tr><td><a href="ch01.html">Prev</a></td></tr></table></div>
{content}
<footer>All rights reserved</footer></body></html>"""


def loaded(folder, name, content):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_document(path, name)


def reason(folder, name, content):
    with pytest.raises(UnreadableDocument) as raised:
        loaded(folder, name, content)
    return str(raised.value)


def page(content):
    return PAGE.format(content=content)


def test_markdown_is_taken_as_it_is_and_titled_by_its_only_top_heading(tmp_path):
    document = loaded(tmp_path, "a.md", "# Pumps\n\nText.\n\n## Seals\n")
    assert (document.source, document.title, document.format) == ("a.md", "Pumps", "markdown")
    assert document.text == "# Pumps\n\nText.\n\n## Seals\n"


def test_markdown_with_several_top_headings_is_titled_by_its_name(tmp_path):
    assert loaded(tmp_path, "pumps.md", "# One\n\n# Two\n").title == "pumps"


def test_front_matter_gives_the_title_and_is_not_text(tmp_path):
    document = loaded(tmp_path, "a.md", '---\r\ntitle: "Pumps"\r\ntags: [x]\r\n---\r\n# One\r\n')
    assert (document.title, document.text) == ("Pumps", "# One\n")


def test_rules_at_the_start_are_no_front_matter(tmp_path):
    assert "kept" in loaded(tmp_path, "a.md", "---\nThis is kept.\n\n---\n").text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_plain_text_is_read_in_any_usual_encoding(tmp_path, encoding):
    document = loaded(tmp_path, "退款.txt", "订单发货后七天内可以退款。\r\n# 不是标题".encode(encoding))
    assert document.text == "订单发货后七天内可以退款。\n# 不是标题"
    assert (document.title, document.format) == ("退款", "text")


def test_western_text_of_an_old_windows_is_read(tmp_path):
    text = "Déjà vu – c’est la première fois que le délai est dépassé."
    assert loaded(tmp_path, "a.txt", text.encode("cp1252")).text == text


def test_invisible_characters_are_dropped(tmp_path):
    assert loaded(tmp_path, "a.txt", "soft\u00adware\u200b is\u00a0here\x07").text == "software is here"


def test_html_keeps_headings_and_drops_navigation(tmp_path):
    document = loaded(
        tmp_path, "a.html", page("<!-- c --><h1>Pumps</h1><p>One.</p><h2>The <code>seal</code></h2><p>Two.</p>")
    )
    assert document.title == "Pumps & valves"
    assert document.text == "# Pumps\n\nOne.\n\n## The seal\n\nTwo."


def test_html_outside_the_main_content_is_dropped(tmp_path):
    document = loaded(tmp_path, "a.htm", page("<div>Menu</div><main><header><h1>Pumps</h1></header><p>One.</p></main>"))
    assert document.text == "# Pumps\n\nOne."


def test_html_tables_and_code_stay_whole(tmp_path):
    content = (
        "<table><tr><th>Part</th><th>No.</th></tr><tr><td><p>Seal</p></td><td>a_1*</td></tr></table>"
        "<pre>\n# make\n  <b>run</b></pre><p>See <a href='http://example.org/x'>the <em>list</em></a>.</p>"
        "<p># no heading</p>"
    )
    assert loaded(tmp_path, "a.html", page(content)).text == (
        "| Part | No. |\n| --- | --- |\n| Seal | a_1* |\n\n```\n# make\n  run\n```\n\nSee the list.\n\n\\# no heading"
    )


def test_code_that_shows_a_fence_gets_a_longer_one(tmp_path):
    assert "````\n```\nx\n```\n````" in loaded(tmp_path, "a.html", page("<pre>```\nx\n```</pre>")).text


def test_tables_that_only_lay_out_the_page_are_taken_apart(tmp_path):
    content = (
        '<div class="tip"><table><tr><td rowspan="2"><img alt="[Tip]"/></td><th>Tip</th></tr>'
        "<tr><td><p>Oil it.</p></td></tr></table></div>"
        '<table><tr><td class="linenos">1</td><td><pre>run</pre></td></tr></table>'
    )
    assert loaded(tmp_path, "a.html", page(content)).text == "Tip:\n\nOil it.\n\n```\nrun\n```"


def test_html_says_its_own_encoding(tmp_path):
    content = '<html><head><meta charset="gb2312"><title>泵</title></head><body><p>密封圈</p></body></html>'
    document = loaded(tmp_path, "a.html", content.encode("gb2312"))
    assert (document.title, document.text) == ("泵", "密封圈")


def test_word_documents_keep_headings_lists_and_tables(tmp_path):
    word = docx.Document()
    word.add_paragraph("The manual", style="Title")
    word.add_heading("Pumps", 1)
    word.add_paragraph("One.")
    word.add_heading("Seals", 2)
    word.add_paragraph("First", style="List Bullet")
    table = word.add_table(rows=2, cols=2)
    for cell, text in zip(table._cells, ["Part", "No.", "Seal", "a_1"], strict=True):
        cell.text = text
    word.save(tmp_path / "a.docx")
    document = read_document(tmp_path / "a.docx", "a.docx")
    assert document.title == "The manual"
    assert document.text == (
        "# The manual\n\n## Pumps\n\nOne.\n\n### Seals\n\n- First\n\n| Part | No. |\n| --- | --- |\n| Seal | a_1 |"
    )


LONG = "The impeller is pressed onto the shaft with a force that the table below states for each of the sizes"


def test_a_pdfs_outline_makes_headings_and_its_lines_make_paragraphs(tmp_path):
    lines = ["Chapter 1", "Pumps", LONG, "and is then secured.", "1.1 Seals", "# make seal", "All fit."]
    document = loaded(tmp_path, "a.pdf", make_pdf([lines], [(0, "Pumps"), (0, "Seals")], title="The manual"))
    assert document.title == "The manual"
    assert document.text == (
        f"# Chapter 1 Pumps\n\n{LONG} and is then secured.\n\n# 1.1 Seals\n\n```\n# make seal\n```\n\nAll fit."
    )


def test_a_pdf_without_outline_has_no_headings(tmp_path):
    document = loaded(tmp_path, "pumps.pdf", make_pdf([["Pumps", "- one", "- two"], ["# three"]]))
    assert {piece.title for piece in split_document(document)} == {"pumps"}


def test_running_heads_page_numbers_and_tables_of_contents_are_dropped(tmp_path):
    kinds = ["Rotary", "Piston", "Screw", "Vane"]
    body = [[f"{kind} pumps.", "Seals . . . . . . . 7", f"{kind} valves."] for kind in kinds]
    text = loaded(
        tmp_path, "a.pdf", make_pdf([["The manual", *lines, f"{n} / 4"] for n, lines in enumerate(body)])
    ).text
    assert text.split("\n\n") == [f"{kind} {part}." for kind in kinds for part in ("pumps", "valves")]


def test_broken_files_say_why(tmp_path):
    assert "no reader for '.xls'" in reason(tmp_path, "a.xls", "x")
    assert "no text" in reason(tmp_path, "a.md", " \n")
    assert "no text" in reason(tmp_path, "a.html", page(""))
    assert "scanned" in reason(tmp_path, "a.pdf", make_pdf([[]]))
    assert "binary" in reason(tmp_path, "a.txt", b"\x7fELF\x00\x01")
    assert "encoding" in reason(tmp_path, "a.txt", b"\x81\xff \x8d")
    assert "no PDF" in reason(tmp_path, "a.pdf", "%PDF-1.4 broken")
    assert "encrypted" in reason(tmp_path, "a.pdf", make_pdf([["secret"]], encrypted=True))
    assert "no Word document" in reason(tmp_path, "a.docx", b"PK\x03\x04 broken")


def test_an_empty_zip_is_no_word_document(tmp_path):
    assert "no Word document" in reason(tmp_path, "a.docx", b"PK\x05\x06" + bytes(18))


@pytest.fixture
def manual() -> Path:
    if not MANUAL.exists():
        needed = "apt-get install debian-reference-en debian-reference-zh-cn"
        assert os.environ.get("CI") != "true", needed
        pytest.skip(needed)
    return MANUAL


@pytest.mark.long
def test_a_real_manual_keeps_its_structure(manual):
    started = time.process_time()
    titles, texts = {}, {}
    for path in sorted(manual.glob("*.*")):
        if path.suffix in {".html", ".pdf"}:
            pieces = split_document(read_document(path, path.name))
            titles[path.name] = {piece.title for piece in pieces}
            texts[path.name] = "\n".join(piece.text for piece in pieces)
            assert all(200 <= len(piece.text) <= 1200 for piece in pieces)
    assert time.process_time() - started < 60
    heading = "2.2. Basic package management operations"
    assert (
        f"Chapter 2. Debian package management > {heading} > 2.2.1. apt vs. apt-get / apt-cache vs. aptitude"
        in titles["ch02.en.html"]
    )
    assert "第 2 章 Debian 软件包管理 > 2.1. Debian 软件包管理的前提 > 2.1.1. 软件包配置" in titles["ch02.zh-cn.html"]
    assert any("1.1 Console basics > 1.1.6 Virtual consoles" in title for title in titles["debian-reference.en.pdf"])
    assert not any("\nPrev\n" in text or "\\_" in text or ". . . ." in text for text in texts.values())
