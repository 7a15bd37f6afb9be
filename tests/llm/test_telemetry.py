"""Token estimates of calls that ended early."""

from __future__ import annotations

from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage

from serve_app.llm.telemetry import CallRecord, estimate_tokens, estimate_usage
from serve_app.values import Usage

MESSAGES = [SystemMessage("Be brief."), HumanMessage("你好")]


def _record(*counts: tuple[int, int] | None) -> CallRecord:
    """A record of chunks of eight bytes, each with these token counts or none."""
    record = CallRecord()
    for each in counts:
        usage = each and {"input_tokens": each[0], "output_tokens": each[1], "total_tokens": sum(each)}
        record.add(AIMessageChunk("8 bytes.", usage_metadata=usage))  # type: ignore[arg-type]
    return record


def test_counts_of_the_provider_come_before_an_estimate() -> None:
    cases = [
        ("no chunk", _record(), Usage(input_tokens=5, output_tokens=0, estimated=True)),
        ("no counts", _record(None, None, None), Usage(input_tokens=5, output_tokens=6, estimated=True)),
        ("counts at the start", _record((40, 1), None, None), Usage(input_tokens=40, output_tokens=6, estimated=True)),
        ("counts in each chunk", _record((40, 1), (0, 9)), Usage(input_tokens=40, output_tokens=10)),
    ]
    for name, record, usage in cases:
        assert estimate_usage(MESSAGES, record) == usage, name


def test_a_token_is_a_short_word_or_a_chinese_character() -> None:
    assert [estimate_tokens(text) for text in ("", "word", "words", "好", "\ud800")] == [0, 1, 2, 1, 1]
