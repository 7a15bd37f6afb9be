"""How does a question fill a tool's parameters?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serve_app.llm.offline.numbers import numbers_in
from serve_app.llm.offline.words import HAN, content, groups, overlap, vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from serve_app.llm.offline.schema import Parameter, Tool
    from serve_app.llm.offline.words import Span

MAX_VALUE_CHARACTERS = 200
NEAR_CHARACTERS = 16
"""How far from its parameter's name a number may stand to be meant by it."""
CUE_CHARACTERS = 12

_NEGATED = re.compile(r"\b(?:no|not|without|don't|never|exclude|excluding|except)\b|不|别|无", re.IGNORECASE)
_QUOTED = re.compile(r"[\"“「『](?P<a>[^\"”」』]{1,200})[\"”」』]|(?<!\w)['‘](?P<b>[^'’]{1,200})['’](?!\w)")
_AFTER_COLON = re.compile(r"[:：]\s*(?P<value>\S.{0,199})", re.DOTALL)
_ABBREVIATED = r"(?:(?:St|Mt|Ft|Dr|Mr|Mrs|Ms)\. )?"
NAME = re.compile(
    rf"(?<![A-Za-z0-9]){_ABBREVIATED}[A-Z][^\W\d_]*"
    rf"(?:(?:[ '’-](?:(?:de|of|the|la|do|da|del|von)[ ])?|(?:-[a-z]{{1,5}}){{1,2}}-){_ABBREVIATED}[A-Z][^\W\d_]*)*"
    r"(?:, (?:[A-Z]\.){2})?"
)
_CAPITALS = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2,6}(?![A-Za-z0-9])")
_PREPOSITION = re.compile(
    r"\b(?:in|for|at|to|of|on|from|about|near|named|called|with|into)\s+"
    r"(?P<value>[^\s?!,;][^?!,;\n]{0,60}?)"
    r"(?=\s*$|\s*[?!,;\n]|\.(?:\s|$)|\s+(?:right|now|today|tomorrow|please|tonight|this|next|at|in|on|for|from|to|and|is|are|with)\b)",
    re.IGNORECASE,
)
_MEASURE = re.compile("[个人位间天次张件份台名周年]?")
_SUM = re.compile(r"[\d(][\d\s+\-*/().%^×÷]{1,200}[\d)]")
_OPERATOR = re.compile(r"\d\s*[+\-*/^×÷%]\s*[\d(]|\)\s*[+\-*/^×÷%]")

_FROM = re.compile(r"\b(?:from|origin|source|depart\w*|start\w*)\b|从|起点|出发|始发|源", re.IGNORECASE)
_TO = re.compile(r"\b(?:to|into|destination|target|arriv\w*|end)\b|到|至|目的|目标|终点|抵达", re.IGNORECASE)
_BEFORE_FROM = re.compile(r"(?:\bfrom|从|自|把|将)\s*$", re.IGNORECASE)
_BEFORE_TO = re.compile(r"(?:\b(?:to|into|in|as)|到|至|去|成|为|换|兑|飞)\s*$", re.IGNORECASE)
_BETWEEN_DIRECTIONS = re.compile("[^从自到至去飞往]+")
TEXTUAL = re.compile(
    r"\b(?:text|message|content|sentence|body|note|comment)\b|文本|内容|句子|消息|正文|原文", re.IGNORECASE
)
_SUM_NAME = re.compile(r"expression|formula|算式|表达式|公式", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Filling:
    """The arguments found in a question, and which required ones were not."""

    arguments: dict[str, Any]
    missing: tuple[Parameter, ...]
    rest: str
    """The text without what became an argument."""
    certain: bool
    """Whether one of the arguments is hardly for another tool: a sum to work out."""


def fill(tool: Tool, text: str, given: Mapping[str, Any]) -> Filling:
    """The arguments that `text` holds for `tool`, beside those that are `given`."""
    arguments = dict(given)
    for stage in (_identifiers, _choices, _numbers, _flags, _strings):
        text = stage(tool, text, arguments)
    missing = tuple(parameter for parameter in tool.required if parameter.name not in arguments)
    sums = [arguments[each.name] for each in tool.parameters if each.name in arguments and _is_sum(each)]
    return Filling(arguments, missing, text, certain=any(_OPERATOR.search(str(each)) for each in sums))


def _identifiers(tool: Tool, text: str, arguments: dict[str, Any]) -> str:
    for parameter in _open(tool, arguments, lambda each: each.shape is not None):
        found = parameter.shape.find(text) if parameter.shape else []
        chosen = (
            found
            if parameter.many
            else _directed(parameter, found, text, lambda each: each.span, _other_cues(parameter, tool))[:1]
        )
        if chosen:
            values = [each.value for each in chosen]
            arguments[parameter.name] = values if parameter.many else values[0]
            text = _without(text, *(each.span for each in chosen))
    return text


def _choices(tool: Tool, text: str, arguments: dict[str, Any]) -> str:
    for parameter in _open(tool, arguments, lambda each: bool(each.choices)):
        found = _directed(
            parameter, sorted(_named(parameter, text)), text, lambda each: each[0], _other_cues(parameter, tool)
        )
        if found:
            span, index = found[0]
            value = parameter.choices[index]
            arguments[parameter.name] = [value] if parameter.many else value
            text = _without(text, span)
    return text


def _named(parameter: Parameter, text: str) -> Iterator[tuple[Span, int]]:
    """Where a choice stands, by its value or by a synonym, and which."""
    spoken = groups(text)
    for index, choice in enumerate(parameter.choices):
        if not str(choice).strip():
            continue
        literal = re.escape(str(choice)).replace("_", r"[ _-]?").replace(r"\-", r"[ _-]?")
        edge = "" if re.search(f"[{HAN}]", str(choice)) else r"(?<![A-Za-z]){}(?![A-Za-z])"
        match = re.search(edge.format(literal) if edge else literal, text, re.IGNORECASE)
        if match:
            yield match.span(), index
            continue
        meant = {word for word in vocabulary(str(choice)) if word.startswith("#")}
        yield from ((span, index) for group, span in spoken if group in meant)


def _numbers(tool: Tool, text: str, arguments: dict[str, Any]) -> str:
    for parameter in _open(tool, arguments, lambda each: each.kind in {"integer", "number"} and not each.choices):
        fitting = [
            (span, value)
            for span, value in numbers_in(text)
            if parameter.minimum <= value <= parameter.maximum and (parameter.kind == "number" or value == int(value))
        ]
        near = [each for each in fitting if overlap(_around(text, each[0]), parameter.words) > 0]
        chosen = next(iter(near or fitting), None)
        if chosen:
            span, value = chosen
            number = int(value) if value == int(value) else value
            arguments[parameter.name] = [number] if parameter.many else number
            text = _without(text, (span[0], span[1] + len(_measure(text, span[1]))))
    return text


def _measure(text: str, start: int) -> str:
    """The word that stands at `start` for what a number counts, which is said with it."""
    match = _MEASURE.match(text, start)
    return match.group() if match else ""


def _flags(tool: Tool, text: str, arguments: dict[str, Any]) -> str:
    for parameter in _open(tool, arguments, lambda each: each.kind == "boolean"):
        mentioned = overlap(text, vocabulary(parameter.name)) > 0
        if mentioned or parameter.required:
            arguments[parameter.name] = mentioned and not _NEGATED.search(text)
    return text


def _strings(tool: Tool, text: str, arguments: dict[str, Any]) -> str:
    for parameter in _open(tool, arguments, lambda each: each.is_free and each.required):
        for span in _spans_for(parameter, tool, text):
            value = text[span[0] : span[1]].strip()
            if parameter.allows(value):
                arguments[parameter.name] = [value] if parameter.many else value
                text = _without(text, span)
                break
    return text


def _spans_for(parameter: Parameter, tool: Tool, text: str) -> Iterator[Span]:
    """Where the value of a free parameter may stand, likeliest first."""
    described = f"{parameter.name} {parameter.description}"
    for match in _QUOTED.finditer(text):
        yield match.span("a") if match["a"] else match.span("b")
    if _is_sum(parameter):
        yield from (match.span() for match in _SUM.finditer(text) if _OPERATOR.search(match.group()))
    if TEXTUAL.search(described):
        yield from (match.span("value") for match in _AFTER_COLON.finditer(text))
    else:
        spans = [*_names(parameter, text), *(match.span("value") for match in _PREPOSITION.finditer(text))]
        contentful = [trimmed for span in spans if (trimmed := _trimmed(text, span, tool, parameter))]
        yield from _directed(parameter, contentful, text, lambda span: span, _other_cues(parameter, tool))
    yield from _remainder(parameter, tool, text)


def _names(parameter: Parameter, text: str) -> list[Span]:
    """Capitalised names; capitals only where all examples are."""
    words = [example for example in parameter.examples if example.isalpha()]
    expression = _CAPITALS if words and all(map(str.isupper, words)) else NAME
    return [match.span() for match in expression.finditer(text)]


def _trimmed(text: str, span: Span, tool: Tool, parameter: Parameter) -> Span | None:
    """The span without words at its ends that say nothing or only what the tool is about; None where that is all.

    What the parameter is called may end its value, as in "Mexico City", and "The" may begin it within a sentence.
    """
    said = text[span[0] : span[1]]
    _, words = content(said, tool.words)
    if not words:
        return None
    start, end = words[0].start, content(said, tool.words - parameter.words)[1][-1].span[1]
    if span[0] and said.startswith("The ") and start == len("The "):
        start = 0
    return span[0] + start, span[0] + end + said.startswith(".", end)


def _remainder(parameter: Parameter, tool: Tool, text: str) -> Iterator[Span]:
    """What is left of the text once the tool's own words are gone; Chinese stretches one by one."""
    _, words = content(text, tool.words)
    if re.search(f"[{HAN}]", text):
        spans = [word.span for word in words]
        if _cue(parameter):
            spans = [match.span() for span in spans for match in _BETWEEN_DIRECTIONS.finditer(text, *span)]
    else:
        whole = [(words[0].start, words[-1].span[1])] if words else []
        spans = [span for span in whole if span[1] - span[0] <= MAX_VALUE_CHARACTERS]
    yield from _directed(parameter, spans, text, lambda span: span, _other_cues(parameter, tool))


def _directed(
    parameter: Parameter,
    found: list[Any],
    text: str,
    span_of: Callable[[Any], Span],
    others: Sequence[re.Pattern[str]] = (),
) -> list[Any]:
    """Those that the text gives the parameter's direction first: "from A", "to B"; the others keep their order.

    What it gives the direction of one of the `others` is left out.
    """
    cue = _cue(parameter)
    if cue is None:
        return found
    before = {id(each): text[: span_of(each)[0]][-CUE_CHARACTERS:] for each in found}
    own = [each for each in found if cue.search(before[id(each)])]
    free = [each for each in found if not any(other.search(before[id(each)]) for other in (cue, *others))]
    return own + free


def _other_cues(parameter: Parameter, tool: Tool) -> list[re.Pattern[str]]:
    """The directions of the tool's other parameters."""
    cues = [_cue(each) for each in tool.parameters if each.name != parameter.name]
    return [cue for cue in cues if cue is not None and cue is not _cue(parameter)]


def _cue(parameter: Parameter) -> re.Pattern[str] | None:
    """What stands before the parameter's value where it has a direction; its name says it, else its description."""
    for described in (parameter.name.replace("_", " "), parameter.description):
        if _FROM.search(described):
            return _BEFORE_FROM
        if _TO.search(described):
            return _BEFORE_TO
    return None


def _is_sum(parameter: Parameter) -> bool:
    described = f"{parameter.name} {parameter.description}"
    return bool(_SUM_NAME.search(described)) or any(_OPERATOR.search(example) for example in parameter.examples)


def _open(tool: Tool, arguments: Mapping[str, Any], wanted: Callable[[Parameter], bool]) -> list[Parameter]:
    return [parameter for parameter in tool.parameters if parameter.name not in arguments and wanted(parameter)]


def _around(text: str, span: Span) -> str:
    return text[max(0, span[0] - NEAR_CHARACTERS) : span[1] + NEAR_CHARACTERS]


def _without(text: str, *spans: Span) -> str:
    for start, end in spans:
        text = text[:start] + " " * (end - start) + text[end:]
    return text
