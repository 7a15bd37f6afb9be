"""The order of passages is right, and none repeats another."""

from __future__ import annotations

from serve_app.knowledge.passage_store import PassageHit
from serve_app.knowledge.search import Candidate, drop_repetitions, fuse_rankings, select_relevant


def candidate(name: str, score: float = 1.0, terms: range = range(10)) -> Candidate:
    weights = dict.fromkeys(terms, 1.0)
    return Candidate(PassageHit(name, name, "digest", "source", "title", "text", weights, 1.0), score)


def names(candidates: list[Candidate]) -> list[str]:
    return [each.hit.id for each in candidates]


def test_what_two_rankings_agree_on_comes_first() -> None:
    lexical = [candidate("a"), candidate("b"), candidate("c")]
    dense = [candidate("d"), candidate("c"), candidate("b")]
    assert names(fuse_rankings(lexical, dense))[:2] == ["b", "c"]
    assert sorted(names(fuse_rankings(lexical, dense))) == ["a", "b", "c", "d"]


def test_a_passage_that_is_found_twice_keeps_its_better_score() -> None:
    assert [each.score for each in fuse_rankings([candidate("a", 0.2)], [candidate("a", 0.7)])] == [0.7]


def test_one_ranking_stays_as_it_is() -> None:
    assert names(fuse_rankings([candidate("b"), candidate("a")], [])) == ["b", "a"]


def test_nothing_bears_on_the_question_unless_one_passage_has_the_least_score() -> None:
    assert select_relevant([candidate("a", 0.39), candidate("b", 0.3)], 0.4) == []
    assert names(select_relevant([candidate("a", 0.3), candidate("b", 0.4), candidate("c", 0.1)], 0.4)) == ["a", "b"]


def test_a_text_that_is_cut_elsewhere_is_the_same_text() -> None:
    whole, half, other = (
        candidate("whole", terms=range(100)),
        candidate("half", terms=range(50, 102)),
        candidate("other", terms=range(90, 150)),
    )
    assert names(drop_repetitions([whole, half, other], 5)) == ["whole", "other"]
    assert names(drop_repetitions([half, whole], 5)) == ["half"]


def test_a_text_that_only_begins_with_one_before_it_says_more() -> None:
    part, whole = candidate("part", terms=range(20)), candidate("whole", terms=range(100))
    assert names(drop_repetitions([part, whole], 5)) == ["part", "whole"]
    assert names(drop_repetitions([whole, part], 5)) == ["whole"]


def test_no_more_than_the_limit_is_returned() -> None:
    different = [candidate(str(i), terms=range(i * 10, i * 10 + 10)) for i in range(9)]
    assert names(drop_repetitions(different, 3)) == ["0", "1", "2"]
