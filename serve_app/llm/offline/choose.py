"""Chooses the tools to call for a message, or the answer without a call.

In this order: small talk; each value that fits a tool's schema; a question about the conversation itself; the detail
that was asked for; a follow-up to an earlier call; a tool whose words the message is made of; a search.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from serve_app.llm.offline.dialog import PlannedCall
from serve_app.llm.offline.phrases import ASKING_TERMS, answer_small_talk, is_chinese, render_phrase
from serve_app.terms import HAN, content_terms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve_app.llm.offline.dialog import ChatTurn
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


_REFERS = _either(
    "it|its|it's|that|this|they|them|their|those|these|same|one|ones|both|again|repeat",
    "再|它|该|此|那个|这个|那单|这单|两个|都",
)
_ELLIPSIS = re.compile(
    r"\s*(?:(?:and|but|so|or|also|what about|how about)\b|那|还有|另外)|.{1,12}呢\s*\??$", re.IGNORECASE
)
_HOW_TO = _either("how (?:do|does|did|to|can|could|should)|what (?:is|are) an?|what does|explain", "如何|怎样|什么是")
_SEVERAL = _either("they|them|their|those|these|both|which", "它们|这些|那些|两个|都|哪个|哪一个|哪些")
_OTHER = _either("other|previous", "另一|另外[那一]?个|前一个|上一个")
_ORDINALS = (
    _either("first", "第一[个单次]?|最先|最早|先[问查]"),
    _either("second", "第二[个单次]?"),
    _either("third", "第三[个单次]?"),
)
_NTH = ("first", "second", "third", "last")
_LAST = _either("last|latest", "最后|最近")
_EARLIER = _either(
    r"(?:did|have|had) (?:i|we) (?:just |already |first |last )?(?:ask(?:ed)?|mention(?:ed)?|look(?:ed)?)"
    r"|i(?: just| have|'ve| first| last)* (?:asked|mentioned)",
    "我.{0,6}[问提查]|刚[才刚].{0,6}[问提查]",
)
_ASKS = _either("which|what|remember|remind|tell me|list|how many", "哪|什么|几个|多少|记得")
_ALL = _either("all|list|how many|everything|which [a-z]+s", "哪些|几个|多少|都|全部|所有|一共")
_NOUN = re.compile(
    r"\b(?:first|second|third|last|which)\s+(?!did|have|has|was|is|one\b|i\b)(?P<en>[a-z]{2,20})"
    rf"|第[一二三]个(?P<nth>[{HAN}]{{1,4}}?)(?:号|是|呢|[^{HAN}]|$)"
    rf"|(?:哪个|哪些)(?P<which>[{HAN}]{{1,3}}?)(?:号|[^{HAN}]|$)",
    re.IGNORECASE,
)
_HARMLESS = _either("look|get|query|check|find|search|show|list|read|track|status|state", "查|获取|读取|状态")
_WORD = re.compile(rf"[A-Za-z0-9'_-]+|[{HAN}]{{1,2}}")


def decide(turns: Sequence[ChatTurn], tools: Sequence[BoundTool]) -> list[PlannedCall] | str:
    """Returns the calls that the last turn's message asks for, or the answer without any."""
    *earlier, now = turns
    text = now.text
    answer = answer_small_talk(text, [tool.name for tool in tools])
    if answer is not None:
        return answer
    calls = (
        calls_by_value(text, tools)
        or recall_value(text, earlier, tools)
        or _complete_call(text, earlier, tools)
        or follow_up(text, earlier, tools)
        or _call_by_words(text, tools)
    )
    return calls[:MAX_CALLS] if isinstance(calls, list) else calls


def calls_by_value(text: str, tools: Sequence[BoundTool]) -> list[PlannedCall] | str:
    """Returns a call for each token that fits a parameter of a tool.

    Returns the question for what is missing where such a call lacks another argument.

    Of several tools the one that the other words of the message speak of is called, else one that only looks up. A
    shape that ordinary words have too counts only where the message speaks of the tool.
    """
    claims: dict[str, list[BoundTool]] = {}
    for tool in tools:
        parameter = tool.identifier
        for value in parameter.find_values(text) if parameter else ():
            if parameter and (parameter.is_specific or _terms(text.replace(str(value), " ")) & tool.terms):
                claims.setdefault(value, []).append(tool)
    calls: list[PlannedCall] = []
    for value, claimants in claims.items():
        tool = max(claimants, key=lambda each: _fitness(each, text))
        parameter = tool.identifier
        if parameter is None or (parameter.many and any(call.name == tool.name for call in calls)):
            continue
        wanted = [each for each, able in claims.items() if tool in able] if parameter.many else value
        rest = text.replace(str(value), " ")
        arguments, missing = tool.fill(rest, {parameter.name: wanted})
        if missing and not calls:
            return _ask_for(missing, text)
        calls += [] if missing else [PlannedCall(tool.name, arguments)]
    return calls


def recall_value(text: str, earlier: Sequence[ChatTurn], tools: Sequence[BoundTool]) -> str:
    """Answers which earlier value was the first, the last, or all; empty for other messages."""
    if not (_EARLIER.search(text) and _ASKS.search(text)):
        return ""
    values: dict[str, BoundTool] = {}
    for call in _earlier_calls(earlier, tools):
        tool = _tool(call.name, tools)
        value = call.arguments.get(tool.identifier.name) if tool and tool.identifier else None
        for each in value if isinstance(value, list) else [value]:
            if tool and each is not None:
                values.setdefault(str(each), tool)
    named = [value for value, tool in values.items() if _terms(text) & tool.terms] or list(values)
    if not named:
        return render_phrase("none_before", text)
    index = _ordinal(text)
    if (index is None and _ALL.search(text)) or (index or 0) >= len(named):
        return render_phrase("recalled_values", text, render_phrase("comma", text).join(named))
    noun = _NOUN.search(text)
    thing = noun[noun.lastgroup] if noun and noun.lastgroup else render_phrase("one", text)
    index = -1 if index is None else index
    return render_phrase("recalled_value", text, render_phrase(_NTH[index], text), thing, named[index])


def follow_up(text: str, earlier: Sequence[ChatTurn], tools: Sequence[BoundTool]) -> list[PlannedCall] | str:
    """Repeats an earlier call: the message is short, or has a pronoun or ordinal."""
    calls = _earlier_calls(earlier, tools)
    if not calls:
        return []
    terms = _terms(_without_ordinals(text))
    call = next((each for each in reversed(calls) if _is_about(each, terms, tools)), calls[-1])
    tool = next(each for each in tools if each.name == call.name)
    own = terms - tool.terms
    refers = bool(_REFERS.search(text) or _ELLIPSIS.match(text) or _ordinal(text) is not None or _OTHER.search(text))
    weight = sum(0.5 if is_chinese(term) else 1 for term in own)  # a Chinese word is several pairs of characters
    length = _count_words(text)
    is_left_out = (refers and weight <= FEW_TERMS and length <= LONG_MESSAGE) or (
        len(own) == 1 and length <= SHORT_MESSAGE
    )
    if own and not is_left_out:
        return []
    if tool.query:
        query = f"{str(call.arguments.get(tool.query.name) or '')[:MAX_CONTEXT_CHARACTERS]} {text}"
        return [_search(tool, query)]
    if own and _HOW_TO.search(text):
        return []
    if (
        own
        and not _REFERS.search(text)
        and (free := [each for each in tool.parameters if each.required and each.is_free])
    ):
        return _ask_for(free, text)
    return _pointed_at(text, [each for each in calls if each.name == tool.name])


def _pointed_at(text: str, calls: list[PlannedCall]) -> list[PlannedCall]:
    """Selects from calls of one tool by ordinal, or the other, all, or the last."""
    distinct = [call for index, call in enumerate(calls) if call not in calls[:index]]
    index = _ordinal(text)
    if _OTHER.search(text) and len(distinct) > 1:
        return [[call for call in distinct if call != calls[-1]][-1]]
    if index is not None and index < len(distinct):
        return [calls[-1] if index < 0 else distinct[index]]
    return distinct if _SEVERAL.search(text) else [calls[-1]]


def _complete_call(text: str, earlier: Sequence[ChatTurn], tools: Sequence[BoundTool]) -> list[PlannedCall] | str:
    """Completes the call for which the last answer asked a detail."""
    if not earlier or _count_words(text) > LONG_MESSAGE or text.rstrip().endswith("?"):
        return []
    before = earlier[-1]
    for tool in tools:
        arguments, missing = tool.fill(before.text)
        if missing and missing[0].is_free and before.answer == _ask_for(missing, before.text):
            arguments, missing = tool.fill(text, {**arguments, missing[0].name: text.strip(" .。!！")})
            return _ask_for(missing, text) if missing else [PlannedCall(tool.name, arguments)]
    return []


def _call_by_words(text: str, tools: Sequence[BoundTool]) -> list[PlannedCall] | str:
    """Calls the tool that half of the message's terms are about, else searches."""
    searching = max((each for each in tools if each.query), key=lambda each: _fitness(each, text), default=None)
    others = [tool for tool in tools if not tool.query]
    terms = _terms(text)
    best = max(others, key=lambda each: len(_terms_of(each) & terms), default=None)
    if best and terms:
        arguments, missing = best.fill(text)
        shared = terms & _terms_of(best)
        explains = bool(_HOW_TO.search(text))
        if shared and len(shared) >= ENOUGH * len(terms) and not (explains and searching):
            return _ask_for(missing, text) if missing else [PlannedCall(best.name, arguments)]
        if shared and not missing and len(arguments) and not explains:
            return [PlannedCall(best.name, arguments)]
    return [_search(searching, text)] if searching else render_phrase("unable", text)


def _earlier_calls(earlier: Sequence[ChatTurn], tools: Sequence[BoundTool]) -> list[PlannedCall]:
    """Returns the earlier calls; for a turn without calls, those that its text names."""
    calls: list[PlannedCall] = []
    for turn in earlier:
        found = turn.calls or calls_by_value(turn.text, tools)
        calls += found if isinstance(found, list) else []
    return [call for call in calls if _tool(call.name, tools)]


def _is_about(call: PlannedCall, terms: frozenset[str], tools: Sequence[BoundTool]) -> bool:
    tool = _tool(call.name, tools)
    return tool is not None and not tool.query and bool(terms & tool.terms)


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
    """Ranks a tool by terms shared with the text, then look-ups, then the simplest."""
    first = tool.description.partition(".")[0]
    is_harmless = bool(_HARMLESS.search(f"{tool.name.replace('_', ' ')} {first}"))
    return len(_terms(text) & tool.terms), is_harmless, -sum(each.required for each in tool.parameters)


def _terms(text: str) -> frozenset[str]:
    """Returns what a message is about, without the words that only ask."""
    return frozenset(term for term in content_terms(text) if len(term) > 1) - ASKING_TERMS


def _terms_of(tool: BoundTool) -> frozenset[str]:
    """Returns what a tool is about, with the values that it takes."""
    literals = [str(value) for parameter in tool.parameters for value in parameter.literals]
    return tool.terms | content_terms(" ".join(literals))


def _count_words(text: str) -> int:
    return len(_WORD.findall(text))


def _ordinal(text: str) -> int | None:
    found = next((index for index, pattern in enumerate(_ORDINALS) if pattern.search(text)), None)
    return -1 if found is None and _LAST.search(text) else found


def _without_ordinals(text: str) -> str:
    for pattern in (*_ORDINALS, _LAST, _OTHER):
        text = pattern.sub(" ", text)
    return text


def _tool(name: str, tools: Sequence[BoundTool]) -> BoundTool | None:
    return next((tool for tool in tools if tool.name == name), None)
