"""How does what the tools returned become an answer?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from serve_app.llm.offline.phrases import phrases_for
from serve_app.llm.offline.quote import bears, passages_in, quotation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from serve_app.llm.offline.conversation import Result, Turn
    from serve_app.llm.offline.phrases import Phrases
    from serve_app.llm.offline.quote import Passage
    from serve_app.llm.offline.schema import Tool

RELAYED_CHARACTERS = 2_000
MAX_SUBJECT_CHARACTERS = 60


def relayed(turn: Turn, tools: Sequence[Tool]) -> Iterator[str]:
    """The answer in pieces: what each tool said, then what the passages of all searches say."""
    phrases = phrases_for(turn.text)
    searches = {tool.name for tool in tools if tool.query}
    passages: list[Passage] = []
    queries: list[str] = []
    lines: list[str] = []
    for result in turn.results:
        found = None if result.failed else passages_in(result.content)
        if found is None or not (found or _is_search(result, searches)):
            lines.append(_line(result, searches, phrases))
        else:
            passages += found
            queries.append(_query(result) or turn.text)
    if lines:
        yield "\n".join(dict.fromkeys(lines))
    if queries:
        yield "\n\n" if lines else ""
        yield from _quoted(" ".join(dict.fromkeys([turn.text, *queries])), queries, passages, phrases)


def _quoted(asked: str, queries: list[str], passages: list[Passage], phrases: Phrases) -> Iterator[str]:
    if any(bears(query, passages) for query in queries):
        yield from quotation(asked, passages, phrases)
    else:
        yield phrases.nothing_found


def _line(result: Result, searches: set[str], phrases: Phrases) -> str:
    subject = "" if _is_search(result, searches) else _subject(result)
    if result.failed or result.content.startswith("error:"):
        return phrases.failed_for.format(subject) if subject else phrases.failed
    said = _readable(result.content)
    if not said:
        return phrases.no_result
    return phrases.result_for.format(subject, said) if subject and subject not in said else phrases.result.format(said)


def _subject(result: Result) -> str:
    """What the call was about, by its arguments."""
    values = [str(value) for value in result.call.arguments.values()] if result.call else []
    subject = ", ".join(values)
    return subject if len(subject) <= MAX_SUBJECT_CHARACTERS else ""


def _is_search(result: Result, searches: set[str]) -> bool:
    """A result whose call is not known is taken for a search's: only lists of passages are asked about."""
    return result.call is None or result.call.name in searches


def _query(result: Result) -> str:
    texts = [value for value in result.call.arguments.values() if isinstance(value, str)] if result.call else []
    return max(texts, key=len, default="")


def _readable(content: str) -> str:
    """Plain text as it is, JSON as lines of names and values."""
    text = content.strip()
    if text[:1] in {"{", "[", '"'}:
        try:
            text = _spelled(json.loads(text))
        except ValueError:
            return text[:RELAYED_CHARACTERS]
    return text if len(text) <= RELAYED_CHARACTERS else f"{text[:RELAYED_CHARACTERS]} …"


def _spelled(value: Any) -> str:
    """A list of a tool's own as lines, everything in it on its line."""
    if isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        return "\n".join(f"- {_inline(each)}" for each in value)
    return _inline(value)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_inline(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_inline, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
