"""What is a call taken to have used that ended early?"""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage

from serve_app.llm.telemetry import CallRecord, estimate_tokens, estimate_usage
from serve_app.values import Usage

GIVEN = [SystemMessage("Be brief."), HumanMessage("你好")]


def _recorded(*counted: tuple[int, int] | None) -> CallRecord:
    """Chunks of eight bytes, each with what it tells of tokens, if anything."""
    record = CallRecord()
    for usage in counted:
        told = usage and {"input_tokens": usage[0], "output_tokens": usage[1], "total_tokens": sum(usage)}
        record.add(AIMessageChunk("8 bytes.", usage_metadata=told))  # type: ignore[arg-type]
    return record


@pytest.mark.parametrize(
    ("record", "usage"),
    [
        (_recorded(), Usage(input_tokens=5, output_tokens=0, estimated=True)),
        (_recorded(None, None, None), Usage(input_tokens=5, output_tokens=6, estimated=True)),
        (_recorded((40, 1), None, None), Usage(input_tokens=40, output_tokens=6, estimated=True)),
        (_recorded((40, 1), (0, 9)), Usage(input_tokens=40, output_tokens=10)),
    ],
    ids=["nothing record", "nothing told", "told at the start", "told as it goes"],
)
def test_what_is_told_counts_before_what_is_estimated(record: CallRecord, usage: Usage) -> None:
    assert estimate_usage(GIVEN, record) == usage


def test_a_token_is_a_short_word_or_a_chinese_character() -> None:
    assert [estimate_tokens(text) for text in ("", "word", "words", "好", "\ud800")] == [0, 1, 2, 1, 1]
