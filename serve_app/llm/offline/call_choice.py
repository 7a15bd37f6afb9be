"""Chooses the tools to call for a message, or the answer without a call.

In this order: small talk; each value that fits a tool's schema; a question about the conversation itself; the detail
that the model asked for; a follow-up to an earlier call; a tool whose words the message is made of; a search.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serve_app.llm.offline.phrases import ASKING_TERMS, answer_small_talk, is_chinese, render_phrase
from serve_app.terms import HAN, content_terms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve_app.llm.offline.schema import BoundTool, ToolParameter

MAX_CALLS = 10
MAX_QUERY_CHARACTERS = 1_000
MAX_CONTEXT_CHARACTERS = 300
FEW_TERMS = 2
"""Terms of its own that a follow-up may have beside a pronoun: with more it has a topic."""
SHORT_MESSAGE = 3
LONG_MESSAGE = 10
"""Words of a message; a Chinese word counts as two characters. A short one may leave out what it is about, a long one
has a topic."""
ENOUGH = 0.5
"""Share of a message's terms that a tool must be about for the message to mean it."""


def _either(english: str, chinese: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{english})\b|{chinese}", re.IGNORECASE)


_REFERS = _either("it|its|it's|that|this|they|them|their|those|these|same|again|repeat", "再|它|该|此|那个|这个")
_ELLIPSIS = re.compile(
    r"\s*(?:(?:and|but|so|or|also|what about|how about)\b|那|还有|另外)|.{1,12}呢\s*\??$", re.IGNORECASE
)
_SELECTS = _either("first|second|third|other|both", "第[一二三]|另一|都|两个")
"""Speaks of one or all of several calls; the rules do not know of which."""
_HOW_TO = _either("how (?:do|does|did|to|can|could|should)|what (?:is|are) an?|what does|explain", "如何|怎样|什么是")
_ORDINALS = {
    "first": _either("first", "第一[个单次]?|最先|最早|先[问查]"),
    "second": _either("second", "第二[个单次]?"),
    "third": _either("third", "第三[个单次]?"),
}
_EARLIER = _either(
    r"(?:did|have|had) (?:i|we) (?:just |already |first |last )?(?:ask(?:ed)?|mention(?:ed)?|look(?:ed)?)"
    r"|i(?: just| have|'ve| first| last)* (?:asked|mentioned)",
    "我.{0,6}[问提查]|刚[才刚].{0,6}[问提查]",
)
_ASKS = _either("which|what|remember|remind|tell me|list|how many", "哪|什么|几个|多少|记得")
_ALL = _either("all|list|how many|everything|which [a-z]+s", "哪些|几个|多少|都|全部|所有|一共")
_NOUN = re.compile(
    r"\b(?:first|second|third|last|which)\s+(?!did|have|has|was|is|one\b|i\b)([a-z]{2,20})"
    rf"|(?:第[一二三]|哪)个([{HAN}]{{1,4}}?)(?:号|是|呢|[^{HAN}]|$)",
    re.IGNORECASE,
)
_HARMLESS = _either("look|get|query|check|find|search|show|list|read|track|status|state", "查|获取|读取|状态")
_WORD = re.compile(rf"[A-Za-z0-9'_-]+|[{HAN}]{{1,2}}")


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A tool and the arguments that it was or is to be called with."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CallResult:
    """The result of a call; `call` is None where the messages do not name it."""

    call: PlannedCall | None
    content: str
    failed: bool


@dataclass(slots=True)
class ChatTurn:
    """A message of the user, the calls and results that followed, and the answer."""

    text: str
    calls: list[PlannedCall] = field(default_factory=list)
    results: list[CallResult] = field(default_factory=list)
    answer: str = ""


Choice = list[PlannedCall] | str
"""Calls, or an answer without any; both may be empty where the rule does not apply."""


def choose_calls(turns: Sequence[ChatTurn], tools: Sequence[BoundTool]) -> Choice:
    """Return the calls that the last turn's message asks for, or the answer without any."""
    *earlier, now = turns
    text = now.text
    answer = answer_small_talk(text, [tool.name for tool in tools])
    if answer is not None:
        return answer
    choice = (
        _call_by_value(text, tools)
        or _recall_value(text, earlier, tools)
        or _complete_call(text, earlier, tools)
        or _follow_up(text, earlier, tools)
        or _call_by_words(text, tools)
    )
    return choice[:MAX_CALLS] if isinstance(choice, list) else choice


def _call_by_value(text: str, tools: Sequence[BoundTool]) -> Choice:
    """Return a call for each token that fits a parameter, or ask what is missing.

    Of several tools the one that the other words of the message speak of is called, else one that only looks up. A
    shape that ordinary words have too counts only where the message speaks of the tool.
    """
    claims: dict[str, list[tuple[BoundTool, ToolParameter]]] = {}
    for tool in tools:
        parameter = tool.identifier
        for value in parameter.find_values(text) if parameter else ():
            if parameter and (parameter.is_specific or _terms(text.replace(value, " ")) & tool.terms):
                claims.setdefault(value, []).append((tool, parameter))
    calls: list[PlannedCall] = []
    for value, claimants in claims.items():
        tool, parameter = max(claimants, key=lambda claim: _fitness(claim[0], text))
        arguments, missing = tool.fill(text.replace(value, " "), {parameter.name: value})
        if missing and not calls:
            return _ask_for(missing, text)
        calls += [] if missing else [PlannedCall(tool.name, arguments)]
    return calls


def _recall_value(text: str, earlier: Sequence[ChatTurn], tools: Sequence[BoundTool]) -> str:
    """Answer which earlier value was the first, the last, or all; empty for other messages."""
    if not (_EARLIER.search(text) and _ASKS.search(text)):
        return ""
    values: dict[str, BoundTool] = {}
    for tool, call in _earlier_calls(earlier, tools):
        if tool.identifier and tool.identifier.name in call.arguments:
            values.setdefault(str(call.arguments[tool.identifier.name]), tool)
    named = [value for value, tool in values.items() if _terms(text) & tool.terms] or list(values)
    if not named:
        return render_phrase("none_before", text)
    ordinal = next((name for name, pattern in _ORDINALS.items() if pattern.search(text)), "last")
    index = -1 if ordinal == "last" else list(_ORDINALS).index(ordinal)
    if index >= len(named) or (ordinal == "last" and _ALL.search(text)):
        return render_phrase("recalled_values", text, render_phrase("comma", text).join(named))
    noun = _NOUN.search(text)
    thing = noun[noun.lastindex] if noun and noun.lastindex else render_phrase("one", text)
    return render_phrase("recalled_value", text, render_phrase(ordinal, text), thing, named[index])


def _complete_call(text: str, earlier: Sequence[ChatTurn], tools: Sequence[BoundTool]) -> Choice:
    """Complete the call for which the last answer asked a detail."""
    if not earlier or _count_words(text) > LONG_MESSAGE or text.rstrip().endswith("?"):
        return []
    before = earlier[-1]
    for tool in tools:
        arguments, missing = tool.fill(before.text)
        if missing and missing[0].is_free and before.answer == _ask_for(missing, before.text):
            arguments, missing = tool.fill(text, {**arguments, missing[0].name: text.strip(" .。!！")})
            return _ask_for(missing, text) if missing else [PlannedCall(tool.name, arguments)]
    return []


def _follow_up(text: str, earlier: Sequence[ChatTurn], tools: Sequence[BoundTool]) -> Choice:
    """Repeat an earlier call: the message is short, or has a pronoun."""
    calls = _earlier_calls(earlier, tools)
    if not calls:
        return []
    terms = _terms(text)
    tool, call = ([each for each in calls if not each[0].query and terms & each[0].terms] or calls)[-1]
    own = terms - tool.terms
    refers = bool(_REFERS.search(text))
    weight = sum(0.5 if is_chinese(term) else 1 for term in own)  # a Chinese word is several pairs of characters
    length = _count_words(text)
    is_left_out = (len(own) == 1 and length <= SHORT_MESSAGE) or (
        (refers or _ELLIPSIS.match(text)) and weight <= FEW_TERMS and length <= LONG_MESSAGE
    )
    if (own and not is_left_out) or _SELECTS.search(text):
        return []
    if tool.query:
        return [_search(tool, f"{str(call.arguments.get(tool.query.name) or '')[:MAX_CONTEXT_CHARACTERS]} {text}")]
    if own and _HOW_TO.search(text):
        return []
    free = [each for each in tool.parameters if each.required and each.is_free]
    return _ask_for(free, text) if own and free and not refers else [call]


def _call_by_words(text: str, tools: Sequence[BoundTool]) -> Choice:
    """Call the tool that half of the message's terms are about, else search."""
    searching = max((each for each in tools if each.query), key=lambda each: _fitness(each, text), default=None)
    terms, shared = _terms(text), {tool: _shared_terms(tool, text) for tool in tools if not tool.query}
    best = max(shared, key=lambda tool: len(shared[tool]), default=None)
    if best and shared[best]:
        arguments, missing = best.fill(text)
        explains = bool(_HOW_TO.search(text))
        if len(shared[best]) >= ENOUGH * len(terms) and not (explains and searching):
            return _ask_for(missing, text) if missing else [PlannedCall(best.name, arguments)]
        if arguments and not missing and not explains:
            return [PlannedCall(best.name, arguments)]
    return [_search(searching, text)] if searching else render_phrase("unable", text)


def _earlier_calls(earlier: Sequence[ChatTurn], tools: Sequence[BoundTool]) -> list[tuple[BoundTool, PlannedCall]]:
    """Return the earlier calls of known tools, else those that a turn's text names."""
    by_name = {tool.name: tool for tool in tools}
    calls: list[PlannedCall] = []
    for turn in earlier:
        found = turn.calls or _call_by_value(turn.text, tools)
        calls += found if isinstance(found, list) else []
    return [(by_name[call.name], call) for call in calls if call.name in by_name]


def _ask_for(missing: Sequence[ToolParameter], text: str) -> str:
    names = []
    for parameter in missing:
        name, examples = parameter.name.replace("_", " "), [*parameter.examples, *map(str, parameter.literals)]
        names.append(render_phrase("for_example", text, name, examples[0]) if examples else name)
    return render_phrase("missing", text, render_phrase("comma", text).join(names))


def _search(tool: BoundTool, query: str) -> PlannedCall:
    name = tool.query.name if tool.query else ""
    return PlannedCall(tool.name, {name: query.strip()[:MAX_QUERY_CHARACTERS]})


def _fitness(tool: BoundTool, text: str) -> tuple[int, bool, int]:
    """Rank a tool by terms shared with the text, then look-ups, then the simplest."""
    first = tool.description.partition(".")[0]
    is_harmless = bool(_HARMLESS.search(f"{tool.name.replace('_', ' ')} {first}"))
    return len(_terms(text) & tool.terms), is_harmless, -sum(each.required for each in tool.parameters)


def _terms(text: str) -> frozenset[str]:
    """Return what a message is about, without the words that only ask."""
    return frozenset(term for term in content_terms(text) if len(term) > 1) - ASKING_TERMS


def _shared_terms(tool: BoundTool, text: str) -> frozenset[str]:
    """Return the terms of a message that the tool or a value of it has."""
    literals = [str(value) for parameter in tool.parameters for value in parameter.literals]
    return _terms(text) & (tool.terms | content_terms(" ".join(literals)))


def _count_words(text: str) -> int:
    return len(_WORD.findall(text))
