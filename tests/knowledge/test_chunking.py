"""Splitting keeps every word, the bounds and the structure."""

from __future__ import annotations

import re
import textwrap
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.knowledge.chunking import MIN_CHARACTERS, Chunk, split_document
from serve_app.values import Document

MAX = 1200
SENTENCE = "The package manager resolves the dependencies of every package before it unpacks anything. "
CHINESE = "软件包管理器在解包之前会解析每个软件包的依赖关系，并且检查它们是否冲突。"


def pieces(text: str, title: str = "", form: str = "markdown") -> list[Chunk]:
    return split_document(Document(source="s", title=title, text=text, format=form))


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def is_subsequence(wanted: list[str], given_words: list[str]) -> bool:
    remaining = iter(given_words)
    return all(word in remaining for word in wanted)


def test_a_short_document_is_one_piece():
    assert pieces("# Refunds\n\nWithin 14 days.") == [Chunk("Refunds", "Within 14 days.")]


def test_an_empty_document_has_no_pieces():
    assert pieces(" \n\n ") == []


def test_the_title_is_the_path_of_headings():
    text = f"# Manual\n\n{SENTENCE * 4}\n\nPackages\n--------\n\n{SENTENCE * 4}\n\n### Pinning ###\n\n{SENTENCE * 4}"
    assert [piece.title for piece in pieces(text)] == ["Manual", "Manual > Packages", "Manual > Packages > Pinning"]


def test_the_documents_title_comes_first_unless_the_first_heading_says_the_same():
    text = f"# One\n\n{SENTENCE * 4}\n\n# Two\n\n{SENTENCE * 4}"
    assert [piece.title for piece in pieces(text, title="Book")] == ["Book > One", "Book > Two"]
    assert [piece.title for piece in pieces(text, title="One")] == ["One", "One > Two"]


def test_a_heading_inside_fenced_code_is_code():
    text = f"# Setup\n\n```bash\n# not a heading\nmake\n===\n```\n\n~~~\n## nor this\n```\n~~~\n\n{SENTENCE * 3}"
    found = pieces(text)
    assert {piece.title for piece in found} == {"Setup"}
    assert "# not a heading\nmake\n===" in found[0].text


def test_a_heading_inside_preformatted_text_is_code():
    (piece,) = pieces("# Setup\n\n<pre>\n# not a heading\n\n# nor this\n</pre>\n\nDone.")
    assert piece == Chunk("Setup", "<pre>\n# not a heading\n\n# nor this\n</pre>\n\nDone.")


def test_hashes_that_are_no_heading_stay_text():
    found = pieces("#hashtag and\n####### seven\n\n#\n\n\\# escaped")
    assert [piece.title for piece in found] == [""]
    assert "#hashtag" in found[0].text


def test_small_sections_are_merged_under_their_common_heading_and_keep_their_own_in_the_text():
    text = "# Ports\n\n" + "\n\n".join(f"## Port {n}\n\nUsed by service {n} for its peers." for n in range(12))
    found = pieces(text)
    assert {piece.title for piece in found} == {"Ports"}
    assert all(MIN_CHARACTERS <= len(piece.text) <= MAX for piece in found)
    assert all(f"## Port {n}\n\nUsed by service {n} " in "\n".join(piece.text for piece in found) for n in range(12))


def test_a_small_last_section_joins_its_own_chapter_and_not_the_next():
    text = f"# One\n\n## A\n\n{SENTENCE * 6}\n\n## B\n\nSee A.\n\n# Two\n\n{SENTENCE * 6}"
    first, second = pieces(text)
    assert first.title == "One"
    assert first.text.startswith("## A\n\n")
    assert first.text.endswith("## B\n\nSee A.")
    assert second.title == "Two"


def test_a_small_introduction_joins_what_it_introduces():
    text = f"# One\n\n{SENTENCE * 6}\n\n# Two\n\nIn short.\n\n## A\n\n{SENTENCE * 6}"
    first, second = pieces(text)
    assert (first.title, second.title) == ("One", "Two")
    assert second.text.startswith("In short.\n\n## A\n\n")


def test_small_sections_at_the_end_join_what_is_before_them():
    first, *rest = pieces(f"{SENTENCE * 9}\n\n# A\n\nSee above.\n\n# B")
    assert rest == []
    assert first.text.endswith("# A\n\nSee above.\n\n# B")


def test_a_heading_with_nothing_below_it_is_kept():
    found = pieces(f"# One\n\n## Empty\n\n## Full\n\n{SENTENCE * 4}\n\n# Last")
    assert "## Empty" in found[0].text
    assert "# Last" in found[-1].text


@pytest.mark.parametrize("sentence", [SENTENCE, CHINESE])
def test_long_paragraphs_are_cut_at_sentence_ends(sentence):
    found = pieces(sentence * 80)
    assert len(found) > 2
    assert all(piece.text.endswith((".", "。")) for piece in found)
    assert all(400 <= len(piece.text) <= MAX for piece in found)


def test_a_sentence_without_end_is_cut_between_words():
    text = " ".join(f"word{n}" for n in range(1000))
    assert [word for piece in pieces(text) for word in piece.text.split()] == text.split()


def test_a_sentence_is_cut_before_a_passage_is_left_too_short():
    found = pieces("# A\n\n" + "short " * 33 + "\n\n" + "word " * 201 + "\n\n# B\n\n" + "word " * 239)
    assert all(len(piece.text) >= MIN_CHARACTERS for piece in found)


def test_chinese_without_sentence_ends_is_cut_after_a_pause():
    found = pieces("一二三四五六七八九，" * 300)
    assert all(piece.text.endswith("，") and len(piece.text) <= MAX for piece in found)


def test_a_cut_table_repeats_its_head_and_keeps_its_rows_whole():
    rows = [f"| {n} | {'meaning ' * 6}{n} |" for n in range(60)]
    found = pieces("# T\n\nThe signals are:\n\n| Signal | Meaning |\n|---|---|\n" + "\n".join(rows))
    assert len(found) > 3
    assert all("| Signal | Meaning |\n|---|---|\n| " in piece.text and len(piece.text) <= MAX for piece in found)
    assert [line for piece in found for line in piece.text.splitlines() if "meaning" in line] == rows


def test_cut_code_keeps_its_lines_and_its_fence():
    lines = [f"echo {n}; " + "x" * 40 for n in range(80)]
    found = pieces("# C\n\nRun:\n\n```bash\n" + "\n".join(lines) + "\n```")
    assert len(found) > 3
    assert all(piece.text.count("```") == 2 and piece.text.endswith("\n```") for piece in found)
    assert [line for piece in found for line in piece.text.splitlines() if "echo" in line] == lines


N = range(60)
RULE = "+------+-------------+"
GRID_ROWS = [f"| n {n}. It | does. Not stop |\n|      | here. And on   |" for n in N]
HTML_ROWS = [f"<tr>\n  <td>Name {n}. It</td>\n  <td>is set. Here too</td>\n</tr>" for n in N]
CELLS = [f"<tr><td>Name {n}. It</td><td>is set. Here too</td></tr>" for n in N]
COMMANDS = [f"run --step {n} --verbose. Output /tmp/out" for n in N]
ALIGNED = [f"name{n:<8}Sets it. Then runs.   Now" if n % 4 else f"a-longer-name{n} Sets it. Then runs" for n in N]
LINES = {
    "code in a list": ("- Do:\n\n", [f"      {line}" for line in COMMANDS], "markdown"),
    "code in a nested list": ("1. Do\n   - so:\n\n", [f"         {line}" for line in COMMANDS], "markdown"),
    "code right below an item": ("- Do:\n", [f"        {line}" for line in COMMANDS], "markdown"),
    "code behind tabs": ("- Do:\n\n", [f"\t\t{line}" for line in COMMANDS], "markdown"),
    "quoted code": ("> ```\n", [f"> {line}" for line in COMMANDS], "markdown"),
    "preformatted code": ("<pre>\n", [f"# {line}\n" for line in COMMANDS], "markdown"),
    "indented text": ("Do:\n\n", [f"    cmd{n} --flag. Next option {n}" for n in N], "text"),
    "text indented below a line": ("Do:\n", [f"    {line}" for line in COMMANDS], "text"),
    "long indented lines": ("Do:\n\n", [f"    run {n} {'--verbose. Output ' * 30}x" for n in N], "text"),
    "a log": ("", [f"2024-01-01 ERROR {n} It failed. Retried" for n in N], "text"),
    "aligned columns": ("NAME        WHAT\n", ALIGNED, "text"),
    "aligned columns in Markdown": ("", ALIGNED, "markdown"),
    "columns behind tabs": ("", [f"name{n}.\tSets it. Then runs." for n in N], "text"),
    "bars in text": ("| a | b |\n|---|---|\n", [f"| {line} | x |" for line in COMMANDS], "text"),
    "a tagged table": ("<table>\n", HTML_ROWS, "markdown"),
    "a tagged table in text": ("<table>\n", CELLS, "text"),
    "a grid": (f"{RULE}\n", [f"{row}\n{RULE}" for row in GRID_ROWS], "markdown"),
    "a grid in text": (f"{RULE}\n", [f"{row}\n{RULE}" for row in GRID_ROWS], "text"),
}


def lost_rows(name: str) -> list[str]:
    """The rows that are cut, and passages that are too long or begin within a row."""
    head, rows, form = LINES[name]
    found = pieces(head + "\n".join(rows), form=form)
    tops = (*head.splitlines(), *(row.splitlines()[0] for row in rows))
    shown = "\n".join(f"\n{piece.text}\n" for piece in found)
    lost = [row for row in rows if f"\n{row.rstrip()}\n" not in shown]
    lost += [piece.text for piece in found if not piece.text.lstrip("\n").startswith(tops) or len(piece.text) > MAX]
    return lost if len(found) > 1 else rows


def test_rows_and_lines_of_code_are_whole_however_they_are_marked():
    assert {name: lost for name in LINES if (lost := lost_rows(name))} == {}


def test_a_tagged_table_on_one_line_is_cut_between_rows():
    found = pieces(f"<table><tr><th>Name</th><th>State</th></tr>{''.join(CELLS)}</table>")
    assert all(piece.text.startswith("<table>\n<tr><th>Name</th><th>State</th></tr>\n<tr><td>") for piece in found)
    assert all(sum(row in piece.text for piece in found) == 1 for row in CELLS)


@pytest.mark.parametrize("rule", ["+======+=============+", RULE])
def test_a_drawn_table_repeats_its_head(rule):
    rows = [f"| n {n:<2} | It does. Not  |" for n in N]
    between = "\n" if rule == RULE else f"\n{RULE}\n"
    found = pieces(f"{RULE}\n| name | what        |\n{rule}\n{between.join(rows)}\n{RULE}")
    assert len(found) > 1
    assert all(piece.text.startswith(f"{RULE}\n| name | what        |\n{rule}\n| n ") for piece in found)


def test_a_row_of_many_lines_is_cut_between_them():
    links = [f'<a href="v{n}.md">Version {n}. See there</a><br/>' for n in N]
    found = pieces("<table>\n<tr>\n<td>\n" + "\n".join(links) + "\n</td>\n</tr>\n</table>")
    assert all(len(piece.text) <= MAX for piece in found)
    assert [line for piece in found for line in piece.text.splitlines() if "Version" in line] == links


@pytest.mark.parametrize("form", ["markdown", "text"])
def test_lines_that_their_author_ended_are_kept_and_wrapped_ones_are_cut_at_sentence_ends(form):
    ended = [
        f"{name} stands for itself. It says {name} {'twice ' * (n % 5)}and" for n, name in enumerate("ABCDEFGHI" * 8)
    ]
    found = pieces("\n".join(ended), form=form)
    assert [line for piece in found for line in piece.text.splitlines()] == ended
    wrapped = textwrap.fill("".join(f"{SENTENCE}So does number {n} of them. " for n in N), 72)
    assert all(piece.text.endswith(".") for piece in pieces(wrapped, form=form))


def test_a_paragraph_in_a_list_is_no_code():
    paragraph = textwrap.indent(textwrap.fill("".join(f"{SENTENCE}And {n}. " for n in N), 72), "    ")
    found = pieces(f"1.  Install.\n\n{paragraph}\n")
    assert all(piece.text.endswith(".") for piece in found)


def test_a_list_item_of_two_lines_is_whole():
    items = [f"* name{n} {'of a package ' * 4}-\n  **kept for {n} {'long ' * (20 + n % 7)}years**" for n in N]
    assert all(piece.text.startswith("* name") and piece.text.endswith("**") for piece in pieces("\n".join(items)))


HEAD = "| a | b |\n|---|---|\n"
LONG_ROW = f"| 1 | {'cell ' * 500}|"


@pytest.mark.parametrize(
    "text",
    [
        f"{LONG_ROW}\n| 2 | z |",
        f"| 0 | z |\n{LONG_ROW}",
        f"| 0 | z |\n{LONG_ROW}\n| 2 | z |",
        f"{LONG_ROW}\n\nShort.\n\n## Next\n\nShort.",
    ],
)
def test_what_is_too_short_beside_a_long_row_stays_with_it_below_one_head(text):
    (piece,) = pieces(f"{HEAD}{text}")
    assert piece.text == f"{HEAD}{text}"


def test_a_row_that_is_a_passage_without_its_head_keeps_the_bound():
    row = f"| {'x' * 1190} |"
    assert [len(piece.text) for piece in pieces(f"{HEAD}{row}\n{row}")] == [len(row)] * 2


def test_every_long_row_has_its_head_and_what_is_long_enough_stands_alone():
    rows = [LONG_ROW, *(f"| {n} | {'cell ' * 15}|" for n in range(9)), LONG_ROW]
    found = [piece.text for piece in pieces(HEAD + "\n".join(rows))]
    assert len(found) == 3
    assert all(text.startswith(HEAD) and len(text) >= MIN_CHARACTERS for text in found)
    assert [line for text in found for line in text.removeprefix(HEAD).splitlines()] == rows


@pytest.mark.parametrize("head", ["```\n", "| a | b |\n|---|---|\n"])
def test_a_line_longer_than_a_passage_stays_whole(head):
    line = "| " + "cell " * 600 + "|"
    found = pieces(f"{head}| short |\n{line}\n| short |\n")
    assert sum(line in piece.text for piece in found) == 1


def test_lists_are_cut_between_items():
    items = [f"- item {n}: " + SENTENCE * 2 for n in range(30)]
    assert all(piece.text.startswith("- item") for piece in pieces("\n".join(items)))


def test_plain_text_has_no_headings():
    found = pieces(f"# comment\n\n{SENTENCE * 5}\n\n{SENTENCE * 9}", title="notes", form="text")
    assert {piece.title for piece in found} == {"notes"}
    assert found[0].text.startswith("# comment")


TINY_BLOCKS = [
    "- a\n\n      x\n", "<pre>\n", "<table>\n\n", "<tr>", "<div>\n", "+-+\n", "+=+\na\n", "a\tb\n", "a  b\n", "# a\n",
    "# a\n\nb\n\n", "a\n\n", "a\n", "|a|\n|-|\n", "```\na\n```\n", "- a\n", "- a\n  - b\n    - c\n", "    x\n\n",
    "a\n=\n", "> ", "> a\n", "[a]: b\n", "*\n",
]  # fmt: skip
CHARACTERS = [
    "#", "# ", "#\n", "|", "|\n", "|-", "`", "```\n", ".", ". ", '."', "。", "a", "a ", "字", "- ", "   ", " \u3000",
    "=\n", "\\", ">", "- > ", "1. ", "<!-- ", "[a",
]  # fmt: skip
NESTED = [
    "".join("  " * depth + "- a\n" for depth in range(400)),
    "".join("> " * depth + "a\n" for depth in range(400)),
]


@pytest.mark.parametrize("length", [20_000, pytest.param(300_000, marks=[pytest.mark.long, pytest.mark.timeout(300)])])
def test_a_hostile_text_costs_what_its_length_costs(length):
    """Code whose time grows with the square of the length takes many minutes for the longer texts."""
    texts = [unit * (length // len(unit)) for unit in TINY_BLOCKS + CHARACTERS] + NESTED
    too_long = [
        (text[:20], form)
        for text in texts
        for form in ("markdown", "text")
        if any(len(piece.text) > MAX for piece in pieces(text, form=form))
    ]
    assert too_long == []


@pytest.mark.timeout(60, func_only=True)
def test_a_line_of_a_megabyte_is_cut():
    for line in ("#" * 1_000_000, "|" * 1_000_000, SENTENCE * 11_000):
        assert all(len(piece.text) <= MAX for piece in pieces(line)), line[:20]


def test_a_row_too_long_for_any_store_is_cut_as_prose_is():
    found = pieces("| a | b |\n|---|---|\n| " + "cell " * 4000 + "|")
    assert all(len(piece.text) <= MAX for piece in found)


HEADING_LINES = 6 * len("###### \n\n" + "x" * 20)
PROSE = st.text(alphabet="ab  .!\n。，字#-|`=>:", min_size=1, max_size=300)
LONG = st.sampled_from([SENTENCE, CHINESE, "word ", "长字", "http://example.org/a-path-that-goes-on ", "x" * 90])
BLOCKS = st.one_of(
    PROSE,
    st.tuples(LONG, st.integers(1, 40)).map(lambda pair: pair[0] * pair[1]),
    st.tuples(st.integers(1, 6), st.text(alphabet="ABC 字", min_size=1, max_size=20)).map(
        lambda pair: f"{'#' * pair[0]} {pair[1]}"
    ),
    st.lists(st.sampled_from(["| a | b |", "| " + "cell " * 30 + "| c |"]), min_size=1, max_size=25).map(
        lambda rows: "| head | er |\n|---|---|\n" + "\n".join(rows)
    ),
    st.lists(st.sampled_from(["make all", "", "# x", "y" * 120]), min_size=1, max_size=25).map(
        lambda lines: "```sh\n" + "\n".join(lines) + "\n```"
    ),
)
DOCUMENTS = st.lists(BLOCKS, min_size=1, max_size=25).map("\n\n".join)


@given(DOCUMENTS, st.sampled_from(["markdown", "text"]))
def test_every_word_is_kept_in_order(text, form):
    found = pieces(text, form=form)
    found_words = [word for piece in found for word in words(f"{piece.title} {piece.text}")]
    assert is_subsequence([word for word in words(text) if len(word) <= 300], found_words)


@given(DOCUMENTS, st.sampled_from(["", "Book"]), st.sampled_from(["markdown", "text"]))
def test_passages_keep_the_bounds(text, title, form):
    found = [piece.text for piece in pieces(text, title, form)]
    assert all(passage.strip() for passage in found)
    assert all(len(passage) <= MAX for passage in found)
    for one, other in pairwise(found):
        has_room = len(one) + len(other) + HEADING_LINES <= MAX
        assert min(len(one), len(other)) >= MIN_CHARACTERS or not has_room


@given(DOCUMENTS)
def test_the_same_text_gives_the_same_passages(text):
    assert pieces(text) == pieces(text)
