"""Which tools does a message call, and with what?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve_app.llm.offline import cues
from serve_app.llm.offline.conversation import Call
from serve_app.llm.offline.lists import listed
from serve_app.llm.offline.phrases import phrases_for
from serve_app.llm.offline.recollect import recollection, statement, without_ordinal
from serve_app.llm.offline.shapes import stands_alone
from serve_app.llm.offline.slots import fill
from serve_app.llm.offline.smalltalk import small_talk, without_greeting
from serve_app.llm.offline.window import MAX_CALLS, by_reference, completed, search
from serve_app.llm.offline.words import content, overlap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve_app.llm.offline.conversation import Conversation
    from serve_app.llm.offline.schema import Parameter, Tool
    from serve_app.llm.offline.shapes import Found
    from serve_app.llm.offline.slots import Filling

ENOUGH = 0.5
"""Share of a question's content that a tool's own words must carry, its arguments left out."""
PLAINLY = 0.8
"""The same, for asking back where a search could be made instead."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A tool, what its arguments would be, and how much of the question is about it."""

    tool: Tool
    filling: Filling
    weight: float
    share: float

    @property
    def is_meant(self) -> bool:
        """Whether the question is about what the tool does."""
        return self.filling.certain or (self.share >= ENOUGH and self.weight >= 1)

    def rank(self, latest: set[str]) -> tuple[bool, float, bool, float]:
        """What puts one choice before another; `latest` are the tools that were called last."""
        return self.is_meant, self.weight, self.tool.name in latest, self.share


def decide(conversation: Conversation, tools: Sequence[Tool]) -> list[Call] | str:
    """The calls that the user's message asks for, or what to say without any."""
    text = conversation.now.text
    talk = small_talk(text, tools)
    if talk is not None:
        return talk
    asked = without_greeting(text)
    calls = _by_identifier(asked, tools)
    if calls:
        return (calls + _other_questions(asked, calls, tools))[:MAX_CALLS]
    told = recollection(asked, conversation, tools)
    if told is not None:
        return told
    stated = statement(asked)
    if stated is not None:
        return stated
    choices = _choices(without_ordinal(asked) if conversation.last_acting else asked, tools, conversation)
    calls = _by_words(asked, choices, conversation, tools) or by_reference(asked, conversation, tools)
    return calls[:MAX_CALLS] or _otherwise(asked, choices, tools)


def _by_identifier(text: str, tools: Sequence[Tool]) -> list[Call]:
    """One call per identifier, to the tool that the rest of the text fits best."""
    claims: dict[str, list[Tool]] = {}
    for tool, found in _claims(text, tools):
        claims.setdefault(found.value, []).append(tool)
    calls: list[Call] = []
    listed: dict[str, Call] = {}
    for value, claimants in claims.items():
        tool = max(claimants, key=lambda each: _fitness(each, text))
        parameter = tool.identifier
        if parameter is None:
            continue
        if parameter.many and tool.name in listed:
            listed[tool.name].arguments[parameter.name].append(value)
            continue
        filling = fill(tool, text.replace(value, " "), {parameter.name: [value] if parameter.many else value})
        if not filling.missing:
            calls.append(Call(tool.name, filling.arguments))
            listed[tool.name] = calls[-1]
    return calls


def _claims(text: str, tools: Sequence[Tool]) -> list[tuple[Tool, Found]]:
    """The identifiers in the text with the tools that take such; the certain shapes, else the doubtful ones."""
    taking = [(tool, parameter) for tool in tools if (parameter := tool.identifier) and parameter.shape]
    certain = [
        (tool, found)
        for tool, parameter in taking
        if parameter.shape and parameter.shape.certain
        for found in parameter.shape.find(text)
    ]
    if certain:
        return certain
    doubtful = [
        (tool, parameter.shape) for tool, parameter in taking if parameter.shape and not parameter.shape.certain
    ]
    doubtful += [(tool, parameter.resembling) for tool, parameter in taking if parameter.resembling]
    return [(tool, found) for tool, shape in doubtful for found in shape.find(text) if _is_about(tool, found, text)]


def _is_about(tool: Tool, found: Found, text: str) -> bool:
    """Whether the text beside the identifier speaks of the tool, so that the token is one of its identifiers."""
    start, end = found.span
    weight, rest = content(f"{text[:start]} {text[end:]}", tool.words)
    if not weight:
        return not rest and stands_alone(found.value)
    return not cues.HOW_TO.search(text) and weight >= ENOUGH * (weight + sum(word.weight for word in rest))


def _fitness(tool: Tool, text: str) -> tuple[float, bool, int]:
    """What decides between tools that take the same identifier: where nothing else does, one that only looks up."""
    first = tool.description.partition(".")[0]
    return (
        overlap(text, tool.words),
        bool(cues.LOOKING_UP.search(f"{tool.name.replace('_', ' ')} {first}")),
        -len(tool.required),
    )


def _choices(text: str, tools: Sequence[Tool], conversation: Conversation) -> list[Choice]:
    """The tools other than searches: that which the text speaks of most first, of two alike the one called last."""
    acting = conversation.last_acting
    latest = {call.name for call in acting.calls} if acting else set()
    choices = []
    for tool in tools:
        if tool.query is None:
            filling = fill(tool, text, {})
            weight, _ = content(text, tool.words)
            rest = sum(word.weight for word in content(_without_listed(tool, text, filling), tool.words)[1])
            choices.append(Choice(tool, filling, weight, weight / (weight + rest) if weight else 0.0))
    return sorted(choices, key=lambda choice: choice.rank(latest), reverse=True)


def _without_listed(tool: Tool, text: str, filling: Filling) -> str:
    """What the filling leaves of the text, without the other values of a list that the first of them begins."""
    rest = filling.rest
    values = {str(value) for each in listed(tool, text, filling.arguments)[1:] for value in each.values()}
    for value in values:
        rest = rest.replace(value, " ")
    return rest


def _by_words(text: str, choices: list[Choice], conversation: Conversation, tools: Sequence[Tool]) -> list[Call]:
    """The call that the text's words ask for; what it leaves out is taken from the window."""
    searchable = any(tool.query for tool in tools)
    wanted = 0.0
    for choice in choices:
        if (
            choice.weight < wanted
            or not choice.is_meant
            or (choice.filling.missing and not _is_particular(choice, text))
        ):
            continue
        if searchable and cues.HOW_TO.search(text) and not cues.REFERS.search(text):
            continue
        arguments = completed(choice.tool, choice.filling, text, conversation)
        if not arguments and cues.MINE.search(text):
            wanted = choice.weight
        if arguments:
            return [Call(choice.tool.name, every) for each in arguments for every in listed(choice.tool, text, each)]
    return []


def _other_questions(text: str, calls: list[Call], tools: Sequence[Tool]) -> list[Call]:
    """A search for each further clause that asks about something else."""
    searching = _search_tool(text, tools)
    clauses = [clause.strip() for clause in cues.CLAUSE_END.split(text) if clause.strip()]
    if searching is None or len(clauses) == 1:
        return []
    called = {call.name for call in calls}
    words = frozenset().union(*(tool.words for tool in tools if tool.name in called))
    questions = [cues.LEAD_IN.sub("", clause, count=1) for clause in clauses]
    return [
        search(searching, question)
        for question in questions
        if cues.ASKS_FIRST.match(question) and not _by_identifier(question, tools) and _has_own_topic(question, words)
    ]


def _has_own_topic(question: str, words: frozenset[str]) -> bool:
    """Whether a clause asks about something else than the tool whose words these are."""
    weight, rest = content(question, words)
    own = sum(word.weight for word in rest)
    explains = cues.HOW_TO.search(question) and not cues.WHY.search(question)
    if cues.REFERS.search(question):
        return bool(explains and own)
    return bool(explains and own + weight) or (not weight and own >= 1)


def _otherwise(text: str, choices: list[Choice], tools: Sequence[Tool]) -> list[Call] | str:
    """A search where one is bound, unless the message plainly wants another tool that lacks an argument."""
    phrases = phrases_for(text)
    searching = _search_tool(text, tools)
    wanted = next((choice for choice in choices if choice.is_meant), None)
    if wanted and wanted.filling.missing and (searching is None or _asks_for_it(wanted, text)):
        return phrases.which.format(phrases.between.join(_asked_for(each, text) for each in wanted.filling.missing))
    if searching is None:
        return phrases.unable
    if cues.REMARK.match(text) and not cues.ASKED_IN_A_REMARK.search(text):
        return phrases.understood
    return [search(searching, text)]


def _is_particular(choice: Choice, text: str) -> bool:
    """Whether a message without an identifier means one thing, and not a topic that is also the tool's."""
    return choice.share > ENOUGH or bool(cues.REFERS.search(text) or cues.MINE.search(text))


def _asks_for_it(choice: Choice, text: str) -> bool:
    return not cues.HOW_TO.search(text) and (choice.share >= PLAINLY or bool(cues.MINE.search(text)))


def _asked_for(parameter: Parameter, text: str) -> str:
    name = parameter.name.replace("_", " ")
    return phrases_for(text).for_example.format(name, parameter.examples[0]) if parameter.examples else name


def _search_tool(text: str, tools: Sequence[Tool]) -> Tool | None:
    searches = [tool for tool in tools if tool.query]
    return max(searches, key=lambda tool: overlap(text, tool.words), default=None)
