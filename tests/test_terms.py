"""Words are found in the forms that people write them in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.terms import content_terms, terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The passwords were encrypted", ["password", "encrypt"]),
        ("use apt-get", ["use", "apt-get", "apt"]),
        ("/etc/fstab", ["etc/fstab", "etc", "fstab"]),
        ("ext4", ["ext4", "ext"]),
        ("sources.list", ["sources.list", "sourc", "list"]),
        ("PubkeyAuthentication", ["pubkeyauthentication", "pubkey", "authent"]),
        ("OD-20240501", ["od-20240501", "od", "20240501"]),
        ("C++ and C#", ["c++", "c#"]),
        ("the user\u2019s file, don\u2019t ask", ["user", "file", "ask"]),
        ("Ｕｔｆ－８", ["utf-8", "utf"]),
        ("恢复文件", ["恢", "复", "文", "件", "恢复", "复文", "文件"]),
        ("请问系统的主机名是什么?", ["系", "统", "系统", "主", "机", "名", "主机", "机名"]),
        ("用vim编辑", ["用", "vim", "编", "辑", "编辑"]),
        ("シス", ["シ", "ス", "シス"]),
        ("한국", ["한", "국", "한국"]),
        ("", []),
        ("?! ...", []),
    ],
)
def test_a_text_yields_its_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [("Updating packages", "update a package"), ("UTF8", "utf-8"), ("Python3", "python"), ("ＡＢＣ", "abc")],
)
def test_two_ways_to_write_a_thing_share_a_term(one: str, other: str) -> None:
    assert set(terms(one)) & set(terms(other))


def test_content_is_told_by_pairs_where_there_are_pairs() -> None:
    assert content_terms("怎样恢复文件?") == {"恢复", "复文", "文件"}
    assert content_terms("库") == {"库"}
    assert content_terms("How are files restored?") == {"file", "restor"}


@given(st.text())
def test_any_text_has_terms_without_spaces(text: str) -> None:
    assert all(term and not any(character.isspace() for character in term) for term in terms(text))
    assert content_terms(text) <= set(terms(text))


@pytest.mark.parametrize("question", ["How long does the warranty last?", "How many warranties last?"])
def test_a_question_of_two_words_is_not_about_the_second(question: str) -> None:
    assert terms(question) == ["warranti", "last"]
