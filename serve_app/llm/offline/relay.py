"""Writes the answer from the results of tools, as they are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from serve_app.llm.offline.phrases import render_phrase
from serve_app.llm.offline.quote import answers_question, quote_passages, read_passages

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from serve_app.llm.offline.dialog import CallResult, ChatTurn
    from serve_app.llm.offline.quote import QuotedPassage
    from serve_app.llm.offline.schema import BoundTool

RELAYED_CHARACTERS = 2_000
MAX_SUBJECT_CHARACTERS = 60


def relay_results(turn: ChatTurn, tools: Sequence[BoundTool]) -> Iterator[str]:
    """Yields the answer in pieces: a line for each result, then quotes from all passages."""
    searches = {tool.name for tool in tools if tool.query}
    passages: list[QuotedPassage] = []
    queries: list[str] = []
    lines: list[str] = []
    for result in turn.results:
        found = None if result.failed else read_passages(result.content)
        if found is None or not (found or _is_search(result, searches)):
            lines.append(_write_line(result, searches, turn.text))
        else:
            passages += found
            queries.append(_longest_text(result) or turn.text)
    yield "\n".join(dict.fromkeys(lines))
    if queries:
        yield "\n\n" if lines else ""
        if any(answers_question(query, passages) for query in queries):
            yield from quote_passages(turn.text, queries, passages)
        else:
            yield render_phrase("nothing_found", turn.text)


def _write_line(result: CallResult, searches: set[str], question: str) -> str:
    subject = "" if _is_search(result, searches) else _describe_call(result)
    if result.failed or result.content.startswith("error:"):
        return render_phrase("failed_for", question, subject) if subject else render_phrase("failed", question)
    text = _make_readable(result.content)
    if not text:
        return render_phrase("no_result", question)
    if subject and subject not in text:
        return render_phrase("result_for", question, subject, text)
    return render_phrase("result", question, text)


def _describe_call(result: CallResult) -> str:
    """Returns the arguments of the call; empty where they are long."""
    subject = ", ".join(map(str, result.call.arguments.values())) if result.call else ""
    return subject if len(subject) <= MAX_SUBJECT_CHARACTERS else ""


def _is_search(result: CallResult, searches: set[str]) -> bool:
    """Returns whether a search was called; an unknown call counts as one."""
    return result.call is None or result.call.name in searches


def _longest_text(result: CallResult) -> str:
    texts = [value for value in result.call.arguments.values() if isinstance(value, str)] if result.call else []
    return max(texts, key=len, default="")


def _make_readable(content: str) -> str:
    """Returns plain text as it is, JSON as lines of names and values."""
    text = content.strip()
    if text[:1] in {"{", "[", '"'}:
        try:
            value = json.loads(text)
        except ValueError:
            return text[:RELAYED_CHARACTERS]
        rows = isinstance(value, list) and any(isinstance(each, dict | list) for each in value)
        text = "\n".join(f"- {_inline(each)}" for each in value) if rows else _inline(value)
    return text if len(text) <= RELAYED_CHARACTERS else f"{text[:RELAYED_CHARACTERS]} …"


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_inline(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_inline, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
