"""What is a call taken to have used that ended early?"""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage

from serve_app.llm.estimating import tokens, used
from serve_app.llm.measuring import Heard
from serve_app.values import Usage

GIVEN = [SystemMessage("Be brief."), HumanMessage("你好")]


def _heard(*counted: tuple[int, int] | None) -> Heard:
    """Chunks of eight bytes, each with what it tells of tokens, if anything."""
    heard = Heard()
    for usage in counted:
        told = usage and {"input_tokens": usage[0], "output_tokens": usage[1], "total_tokens": sum(usage)}
        heard.hear(AIMessageChunk("8 bytes.", usage_metadata=told))  # type: ignore[arg-type]
    return heard


@pytest.mark.parametrize(
    ("heard", "usage"),
    [
        (_heard(), Usage(input_tokens=5, output_tokens=0, estimated=True)),
        (_heard(None, None, None), Usage(input_tokens=5, output_tokens=6, estimated=True)),
        (_heard((40, 1), None, None), Usage(input_tokens=40, output_tokens=6, estimated=True)),
        (_heard((40, 1), (0, 9)), Usage(input_tokens=40, output_tokens=10)),
    ],
    ids=["nothing heard", "nothing told", "told at the start", "told as it goes"],
)
def test_what_is_told_counts_before_what_is_estimated(heard: Heard, usage: Usage) -> None:
    assert used(GIVEN, heard) == usage


def test_a_token_is_a_short_word_or_a_chinese_character() -> None:
    assert [tokens(text) for text in ("", "word", "words", "好", "\ud800")] == [0, 1, 2, 1, 1]
