"""A long text costs what its length costs, whatever it is made of: one that costs more stops a process for everybody.

Each text has a million characters: code whose cost grows with the square of the length takes minutes for it, where the
time limit of a test is ten seconds.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk

from serve_app.agent.citations import cited_numbers
from serve_app.llm.openai_compatible.tool_calls import InvalidArguments, read_arguments
from serve_app.llm.reply_reader import ReplyReader
from serve_app.llm.reply_text import TextReader
from serve_app.observability.redaction import Redactor
from serve_app.terms import terms
from serve_app.values.sanitize import sanitize_text, truncate

if TYPE_CHECKING:
    from collections.abc import Callable

LENGTH = 1_000_000
UNITS = (
    "a word ", "a", " ", "\n", "`", "~", "<", "[", "[1", "1", "[1,", "1 ", '"', "\\", "\ud83d", "中", "{",
    "(", "+-", "|",
    "`<think>` ", "<think>", "<think>x</think>", "</think>", "<|im_end|>", "[THINK]",
    "<tool_call>", "<tool_call>x</tool_call>", '<tool_call>{"name":', "<function=a>", "<function=a><parameter=b>",
    "</parameter><parameter=b>", "<tool_call>a<arg_key>b</arg_key>", "<tool_call>a<arg_key>b</arg_key><arg_value>",
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>", "[TOOL_CALLS]", "<|python_tag|>{",
    '<tool_call>{"name": "pay", "arguments": {}}</tool_call>',
    "a@", "a.", "sk-", "password=", "://a:",
)  # fmt: skip


at_once = pytest.mark.timeout(10, func_only=True)
"""For the test alone: the last test of a worker also closes what the session has opened."""


def _read_text(text: str, size: int = 2 * LENGTH, *, holds: bool = False) -> None:
    reader = TextReader(lambda call: call.name == "pay", holds_text=holds)
    for place in range(0, len(text), size):
        reader.feed(text[place : place + size])
    reader.finish()


def _read_calls_in_pieces(text: str) -> None:
    reader = ReplyReader((), frozenset({"pay"}))
    for place in range(0, len(text) // 10, 20):  # LangChain takes 80 µs to make a piece
        piece = tool_call_chunk(name=None if place else "pay", args=text[place : place + 20], index=0)
        reader.feed(AIMessageChunk(content="", tool_call_chunks=[piece]))
    reader.finish()


def _read_arguments(text: str) -> None:
    for written in (text, f"```json\n{text}\n```", f'{{"a": "{text}"}}'):
        with suppress(InvalidArguments):
            read_arguments(written)


READERS: dict[str, Callable[[str], object]] = {
    "a reply": _read_text,
    "a stream": partial(_read_text, size=20),
    "a stream of a model that thinks": partial(_read_text, size=20, holds=True),
    "a call in a stream": _read_calls_in_pieces,
    "arguments": _read_arguments,
    "citations": lambda text: cited_numbers(text, 9),
    "redaction": lambda text: Redactor(()).redact(text),
    "words": terms,
    "valid text": lambda text: truncate(sanitize_text(text), 1000),
}


@pytest.mark.long
@at_once
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", READERS)
def test_a_long_text_costs_what_its_length_costs(name: str, unit: str) -> None:
    READERS[name](unit * (LENGTH // len(unit)) + "x")


@at_once
@pytest.mark.parametrize("unit", ["[11", "[1 1 ", "1", "[^1"])
def test_an_answer_full_of_numbers_is_searched_for_citations_at_once(unit: str) -> None:
    assert cited_numbers("[" + unit * 30 + " x", 9) == set()
