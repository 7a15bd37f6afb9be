"""Does splitting keep every word, the bounds and the structure?"""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.knowledge.chunk import MIN_CHARACTERS, Piece, split
from serve_app.values import Document

MAX = 1200
SENTENCE = "The package manager resolves the dependencies of every package before it unpacks anything. "
CHINESE = "软件包管理器在解包之前会解析每个软件包的依赖关系，并且检查它们是否冲突。"


def pieces(text: str, title: str = "", form: str = "markdown") -> list[Piece]:
    return split(Document(source="s", title=title, text=text, format=form))


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def is_subsequence(wanted: list[str], given_words: list[str]) -> bool:
    remaining = iter(given_words)
    return all(word in remaining for word in wanted)


def test_a_short_document_is_one_piece():
    assert pieces("# Refunds\n\nWithin 14 days.") == [Piece("Refunds", "Within 14 days.")]


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


TINY_BLOCKS = ["# a\n", "a\n\n", "|a|\n|-|\n", "```\na\n```\n", "- a\n", "    x\n\n", "a\n=\n", "> "]
RUNS = [
    "#",
    "# ",
    "#\n",
    "|",
    "|\n",
    "|-",
    "`",
    "```\n",
    ".",
    ". ",
    '."',
    "。",
    "a",
    "a ",
    "字",
    "- ",
    "   ",
    "=\n",
    "\\",
]


@pytest.mark.parametrize("repeated", TINY_BLOCKS + RUNS)
@pytest.mark.parametrize("form", ["markdown", "text"])
def test_hostile_texts_take_linear_time(repeated, form):
    started = time.process_time()
    found = pieces(repeated * (300_000 // len(repeated)), form=form)
    assert time.process_time() - started < 2
    assert all(len(piece.text) <= MAX for piece in found)


@pytest.mark.parametrize("line", ["#" * 1_000_000, "|" * 1_000_000, SENTENCE * 11_000])
def test_a_line_of_a_megabyte_takes_less_than_two_seconds(line):
    started = time.process_time()
    found = pieces(line)
    assert time.process_time() - started < 2
    assert all(len(piece.text) <= MAX for piece in found)


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
    kept = [word for piece in found for word in words(f"{piece.title} {piece.text}")]
    assert is_subsequence([word for word in words(text) if len(word) <= 300], kept)


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
