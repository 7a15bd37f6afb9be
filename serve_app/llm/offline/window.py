"""What does a message leave out that the conversation before it holds?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serve_app.llm.offline import cues
from serve_app.llm.offline.conversation import Call
from serve_app.llm.offline.lists import listed
from serve_app.llm.offline.recollect import has_ordinal, nth, without_ordinal
from serve_app.llm.offline.slots import fill
from serve_app.llm.offline.words import content

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve_app.llm.offline.conversation import Conversation, Turn
    from serve_app.llm.offline.schema import Parameter, Tool
    from serve_app.llm.offline.slots import Filling

MAX_QUERY_CHARACTERS = 1_000
MAX_CONTEXT_CHARACTERS = 300
MAX_CALLS = 10
FEW_WORDS = 2
"""Words of content beside a pronoun: with more, a message has a topic of its own."""


def by_reference(text: str, conversation: Conversation, tools: Sequence[Tool]) -> list[Call]:
    """The calls of a message that only makes sense after the turn before."""
    acting = conversation.last_acting
    by_name = {tool.name: tool for tool in tools}
    names = [call.name for call in acting.calls if call.name in by_name] if acting else []
    if acting is None or not names:
        return []
    last = by_name[names[-1]]
    return _searched_on(last, acting, text) if last.query else _called_again(last, acting, text, conversation)


def _searched_on(last: Tool, acting: Turn, text: str) -> list[Call]:
    """The search that a follow-up to a search asks for."""
    _, rest = content(text)
    dependent = cues.ELLIPSIS.match(text) or cues.REFERS.search(text) or not rest
    return [search(last, text, _query_of(acting.calls, last))] if dependent and len(rest) <= 2 * FEW_WORDS else []


def _called_again(last: Tool, acting: Turn, text: str, conversation: Conversation) -> list[Call]:
    """The same call again, with what a follow-up changes in it."""
    bare = without_ordinal(text)
    weight, rest = content(bare, last.words)
    dependent = cues.REFERS.search(text) or cues.ELLIPSIS.match(text)
    if cues.HOW_TO.search(text) and not (weight and dependent):
        return []
    said = " ".join(result.content[:MAX_QUERY_CHARACTERS] for result in acting.results).casefold()
    own = [word for word in rest if word.text.casefold() not in said]
    filling = fill(last, bare, {})
    bare_value = cues.VALUE.match(text) and not content(filling.rest)[1]
    changed = bool((cues.ELLIPSIS.match(text) or bare_value) and filling.arguments)
    points = cues.REFERS.search(text) or (has_ordinal(text) and cues.ELLIPSIS.match(text))
    if not changed and rest and (len(own) > FEW_WORDS or not points):
        return []
    kept = filling if changed else fill(last, "", {})
    arguments = completed(last, kept, text, conversation)
    return [Call(last.name, every) for each in arguments for every in listed(last, text, each)]


def completed(tool: Tool, filling: Filling, text: str, conversation: Conversation) -> list[dict[str, Any]]:
    """The arguments, with those that are missing taken from the window; several where the text means several."""
    pointed = _pointed_at(tool, filling, text, conversation)
    completed = [{name: value for name, value in filling.arguments.items() if name not in pointed}]
    for parameter in (*filling.missing, *pointed.values()):
        values = _remembered(parameter, tool, text, conversation)
        if not values:
            return []
        if parameter.many and not isinstance(values[0], list):
            values = [values]
        completed = [{**arguments, parameter.name: value} for arguments in completed for value in values]
    return completed[:MAX_CALLS]


def _pointed_at(tool: Tool, filling: Filling, text: str, conversation: Conversation) -> dict[str, Parameter]:
    """The parameters whose value "there" stands for; what follows it in the text, and is no name, is none."""
    place = cues.PLACE.search(text)
    if place is None:
        return {}
    return {
        parameter.name: parameter
        for parameter in tool.required
        if parameter.is_free
        and isinstance(value := filling.arguments.get(parameter.name), str)
        and not value[:1].isupper()
        and text.find(value) >= place.end()
        and conversation.values_of(parameter, tool.name)
    }


def _remembered(parameter: Parameter, tool: Tool, text: str, conversation: Conversation) -> list[Any]:
    """The value that a message refers to: the latest, or by its ordinal, or all of the latest that named several."""
    by_turn = conversation.values_of(parameter, tool.name)
    if not by_turn:
        return []
    flat = [value for turn in by_turn for value in turn]
    distinct = [value for index, value in enumerate(flat) if value not in flat[:index]]
    if cues.OTHER.search(text):
        return [value for value in distinct if value != flat[-1]][-1:]
    index = nth(text, len(distinct))
    if index is not None:
        return [flat[-1] if index < 0 else distinct[index]]
    if cues.PLURAL.search(text) or cues.WHICH.search(text):
        return by_turn[-1] if len(by_turn[-1]) > 1 else distinct
    return by_turn[-1][-1:]


def search(tool: Tool, text: str, context: str = "") -> Call:
    """A search for what `text` asks, made complete by what was asked before."""
    query = f"{context[:MAX_CONTEXT_CHARACTERS]} {text}".strip() if context else text.strip()
    name = tool.query.name if tool.query else ""
    return Call(tool.name, {name: query[:MAX_QUERY_CHARACTERS]})


def _query_of(calls: list[Call], tool: Tool) -> str:
    """What was searched for last, which makes a follow-up complete in itself."""
    queries = [call.arguments.get(tool.query.name) for call in calls if tool.query and call.name == tool.name]
    return str(queries[-1]) if queries and queries[-1] else ""
