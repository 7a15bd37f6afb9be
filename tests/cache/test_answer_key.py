"""Cache keys: equal for questions of the same meaning, and for no others."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.cache import hash_question, hash_settings, normalize_question
from serve_app.config import KnowledgeSettings, ModelSettings

TEXT = st.text(min_size=1, max_size=60)
WORDS = st.lists(st.text("abcXYZ019?!.,-+²③é中文？　\t", min_size=1, max_size=6), min_size=1, max_size=8)


@given(TEXT)
def test_what_is_normalised_stays_as_it_is(text: str) -> None:
    assert normalize_question(normalize_question(text)) == normalize_question(text)


@given(WORDS, st.data())
def test_spaces_between_words_and_the_width_and_composition_of_characters_do_not_count(
    words: list[str], data: st.DataObject
) -> None:
    spaces = [data.draw(st.sampled_from([" ", "  ", "\t", "\u3000", " \u3000 "])) for _ in words]
    spaced = "".join(space + word for space, word in zip(spaces, words, strict=True)) + " "
    assert normalize_question(unicodedata.normalize("NFD", spaced)) == normalize_question(" ".join(words))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("订单 ＯＤ－１２ 在哪里？", "订单 OD-12 在哪里?"),
        ("  What is new? ", "What is new?"),
        ("caf\u00e9", "cafe\u0301"),
        ("ｶﾞ", "ガ"),
        ("one\r\ntwo", "one\ntwo"),
    ],
)
def test_the_same_question_may_be_typed_in_several_ways(one: str, other: str) -> None:
    assert normalize_question(one) == normalize_question(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 10²?", "What is 102?"),
        ("Is it 1½ m?", "Is it 11/2 m?"),
        ("Which is no. ①2?", "Which is no. 12?"),
        ("Who is us?", "Who is US?"),
        ("Is it safe?", "Is it not safe?"),
        ("It is safe.", "It is safe?"),
        ("What is -5 + 3?", "What is 5 + 3?"),
        ("What is 1.5?", "What is 15?"),
        ("f x", "fx"),
        ("可以吃", "不可以吃"),
        ("How long is 'a  b'?", "How long is 'a b'?"),
        ("if a:\n  b()\nc()", "if a:\n  b()\n  c()"),
        ("a\nb", "a b"),
    ],
)
def test_what_may_mean_something_else_is_another_question(one: str, other: str) -> None:
    assert normalize_question(one) != normalize_question(other)


@given(TEXT, st.data())
def test_a_digit_more_another_digit_or_one_fewer_is_another_question(text: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(text)))
    digits = data.draw(st.lists(st.sampled_from("0123456789"), min_size=2, max_size=2, unique=True))
    one, other = (text[:place] + each + text[place:] for each in digits)
    assert normalize_question(one) != normalize_question(other)
    assert normalize_question(one) != normalize_question(text)


@given(TEXT, st.sampled_from(["not", "no", "never", "不", "没有", "-", "?", "!", "¬"]), st.data())
def test_a_negation_or_a_mark_more_is_another_question(text: str, word: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(text)))
    assert normalize_question(f"{text[:place]}{word}{text[place:]}") != normalize_question(text)


@given(TEXT, TEXT)
def test_two_texts_of_which_neither_has_a_twin_collide_only_where_they_are_equal(one: str, other: str) -> None:
    if normalize_question(one) == normalize_question(other):
        normalized = ["".join(unicodedata.normalize("NFKC", each).split()) for each in (one, other)]
        assert normalized[0] == normalized[1]


def test_every_setting_counts() -> None:
    parts = (ModelSettings(), KnowledgeSettings())
    assert hash_settings(*parts) == hash_settings(*parts)
    others = [
        (ModelSettings(temperature=1), parts[1]),
        (ModelSettings(name="openai:glm-4"), parts[1]),
        (parts[0], KnowledgeSettings(limit=6)),
        (parts[0], KnowledgeSettings(collection="other")),
        (*parts, "prompt"),
    ]
    assert len({hash_settings(*each) for each in (parts, *others)}) == 6


def test_no_part_runs_into_the_next() -> None:
    digests = [
        hash_question("a", [], "b", "c"),
        hash_question("a", [], "bc"),
        hash_question("ab", [], "c"),
        hash_question("a", ["b"], "c"),
    ]
    assert len(set(digests)) == 4
