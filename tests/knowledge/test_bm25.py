"""A question's score says whether a passage bears on it."""

from __future__ import annotations

import pytest

from serve_app.knowledge.bm25 import (
    AVERAGE_CHARACTERS,
    K1,
    SearchQuery,
    find_synonyms,
    idf,
    passage_frequencies,
    passage_weights,
    read_groups,
    term_id,
)
from serve_app.terms import terms

CORPUS = [
    ("Disks > Cleaning", "Erase every file of the disk with shred."),
    ("Disks > Growing", "A logical volume spans many disks."),
    ("网络 > 密码", "用 passwd 修改密码。"),
    ("Network > Firewall", "The firewall filters packets by port."),
]
WEIGHTS = [passage_weights(title, text) for title, text in CORPUS]


def score(question: str) -> list[float]:
    weighed = SearchQuery.parse(question).weigh(len(CORPUS), passage_frequencies(WEIGHTS))
    return [weighed.score(weights) for weights in WEIGHTS]


def test_a_term_has_the_same_index_in_every_process() -> None:
    assert term_id("disk") == 208985346


def test_the_weight_of_a_term_saturates_and_falls_with_the_length() -> None:
    once, often = passage_weights("", "disk"), passage_weights("", "disk " * 9)
    long = passage_weights("", "disk" + " other" * 300)
    disk = term_id("disk")
    assert long[disk] < once[disk] < often[disk] < K1 + 1
    usual = passage_weights("", "disk" + "." * (AVERAGE_CHARACTERS - 4))
    assert usual[disk] == pytest.approx(1)


def test_a_heading_counts_more_than_the_text_and_the_text_more_than_the_path() -> None:
    path, text, heading = (
        passage_weights(*each)[term_id("disk")]
        for each in (("disk > it", "words"), ("it > it", "disk!"), ("it > disk", "words"))
    )
    assert path < text < heading


def test_a_rare_term_tells_more_than_a_frequent_one_and_an_unknown_one_most() -> None:
    assert idf(1000, 0) > idf(1000, 1) > idf(1000, 900) > 0


def test_a_passage_that_carries_the_whole_question_scores_one() -> None:
    assert score("Which firewall filters packets?")[3] == pytest.approx(1)
    assert score("修改密码")[2] == pytest.approx(1)


def test_a_question_about_something_else_scores_low_though_a_word_is_shared() -> None:
    assert max(score("Which airport has the most gates and the best port wine?")) < 0.2


def test_half_of_a_long_question_is_better_evidence_than_half_of_a_short_one() -> None:
    short = score("firewall zebra")[3]
    long = score("firewall packets port filters zebra giraffe lion tiger")[3]
    assert 0 < short < long < 1


def test_a_synonym_is_found_and_counts_less_than_the_word() -> None:
    assert 0 < score("wipe")[0] < score("erase")[0]
    assert 0 < score("口令")[2] < score("密码")[2]


def test_a_question_in_one_language_finds_a_text_in_the_other() -> None:
    assert score("password")[2] > 0
    assert score("防火墙")[3] > 0


def test_many_words_for_one_thing_are_worth_no_more_than_one() -> None:
    weighed = SearchQuery.parse("erase").weigh(4, passage_frequencies(WEIGHTS))
    one, many = passage_weights("", "erase it"), passage_weights("", "erase wipe")
    assert weighed.rank_value(many) == pytest.approx(weighed.rank_value(one), rel=0.01)


def test_every_synonym_is_a_term_and_no_group_is_alone() -> None:
    for words in read_groups():
        assert len(words) == len(set(words)) > 1, words
        assert all(terms(word) for word in words), words


def test_a_question_without_synonyms_has_none() -> None:
    assert find_synonyms("zebra 斑马") == []


def test_a_whole_document_sent_as_a_question_is_looked_at_in_part() -> None:
    assert len(SearchQuery.parse(" ".join(f"word{i}" for i in range(5000))).concepts) <= 200
