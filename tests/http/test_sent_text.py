"""A client that cannot take words back ends up with the answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.http.openai.completion import PARAGRAPH_BREAK, SentText
from serve_app.values import Token

TEXTS = st.text(alphabet="ab\n", max_size=6)
TOKENS = st.lists(st.builds(Token, text=TEXTS, restart=st.booleans()), max_size=8)


def _sent(result: str, *tokens: Token) -> str:
    text = SentText()
    sent = "".join([*(text.add(token) for token in tokens), text.finish(result)])
    assert sent == text.sent
    return sent


@pytest.mark.parametrize(
    ("tokens", "sent"),
    [
        ([], "It is sunny."),
        ([Token(text="It is "), Token(text="sunny.")], "It is sunny."),
        ([Token(text="It "), Token(text="It", restart=True), Token(text=" is sunny.")], "It is sunny."),
        ([Token(text="It is sun"), Token(text="It is", restart=True)], "It is sunny."),
        ([Token(text="Wait."), Token(text="It is sunny.", restart=True)], "Wait.\n\nIt is sunny."),
        ([Token(text="It was"), Token(text="It ", restart=True), Token(text="is sunny.")], "It was\n\nIt is sunny."),
        ([Token(text="It is sunny. Or")], "It is sunny. Or\n\nIt is sunny."),
    ],
)
def test_a_restarted_answer_goes_on_where_the_one_before_it_stopped_or_stands_alone(tokens, sent):
    assert _sent("It is sunny.", *tokens) == sent


@given(TOKENS, TEXTS)
def test_what_was_sent_ends_with_the_whole_answer(tokens, result):
    sent = _sent(result, *tokens)
    assert sent == result or sent.endswith(PARAGRAPH_BREAK + result)


@given(st.lists(TEXTS, max_size=8))
def test_an_answer_without_restarts_is_sent_word_by_word(texts):
    text = SentText()
    assert [text.add(Token(text=each)) for each in texts] == texts
    assert text.finish("".join(texts)) == ""
