"""What of the conversation itself is asked for?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from serve_app.llm.offline.cues import ASKED_IN_A_REMARK, OTHER, either
from serve_app.llm.offline.phrases import phrases_for
from serve_app.llm.offline.words import overlap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve_app.llm.offline.conversation import Conversation
    from serve_app.llm.offline.phrases import Phrases
    from serve_app.llm.offline.schema import Tool

_ASKS = either(
    "which|what|how many|remember|remind|repeat|list|recall|tell me|summari[sz]e|sum up|recap",
    "哪|什么|几个|多少|谁|列出|记得|重复|总结|回顾|概括|归纳",
)
_LATELY = (
    "(?:刚才|刚刚|之前|先前|前面|最早|最先|最开始|一开始|最后|上次|总共|一共|都|首先|已经|曾经|还|先"
    "|第[一二三四五]?(?:次|个))"
)
_EARLIER = re.compile(
    r"\b(?:did|have|had) (?:i|we)\b.{0,40}?"
    r"\b(?:ask|mention|sa(?:y|id)|tell|told|gi?ve|gave|quer|inquir|talk|discuss|look|check|want)"
    r"|\b(?:i|we)(?: just| first| last| previously| originally| already| have| had){0,2}"
    r" (?:asked|mentioned|said|told|gave|queried)\b"
    r"|\b(?:my|our)(?: very)? (?:first|second|third|last|previous|earlier|prior|latest|original|initial|most recent)"
    r" (?:questions?|messages?|quer(?:y|ies)|inquir(?:y|ies)|requests?)\b"
    rf"|我(?:们)?{_LATELY}{{0,3}}(?:问|提|说|查|发|给)(?:你|您|到|起|询|及){{0,2}}(?:的|了|过)"
    r"|我的?(?:上一个|上个|前一个|第[一二三四五]个|最后一个|刚才的|刚刚的|最初的|之前的)(?:问题|消息|提问|话)"
    rf"|(?:刚才|刚刚|之前|最开始|一开始)我?{_LATELY}?(?:问|提|说|查)"
    r"|\bremind me (?:of|about) (?:the|my)(?: very)? (?:first|second|third|last|previous|other)\b"
    r"|\b(?:our|this) (?:conversation|chat|discussion|dialog(?:ue)?)\b"
    r"|(?:我们|咱们|本次|这次|刚才|刚刚|之前|以上|上面)(?:刚才|刚刚|之前|都)?的?(?:对话|聊天|谈话|会话|聊|谈)",
    re.IGNORECASE,
)
_QUESTIONS = either(
    r"questions?|messages?|quer(?:y|ies)|say|said|what (?:did|have|had) i \w*?\s?ask(?:ed)?(?! (?:you )?about)"
    "|(?:talk|discuss|chat)(?:ed)?|conversation|discussion|dialog(?:ue)?",
    "问题|消息|提问|的话|说了|[问查](?:了|过|的(?:都)?是)什么|对话|聊|谈|会话",
)
_ALL = either(
    r"all|list|how many|which \w+s(?! (?:was|did i ask about (?:first|last)))|everything",
    "哪些|几个|多少个|都|全部|所有|一共|总共",
)
_ORDINALS = (
    (
        either(
            r"first|1st|initial|original|originally|at the (?:start|beginning)",
            "第一|先[问查提说]|最早|最先|最开始|一开始|最初|首先|首个",
        ),
        0,
    ),
    (either("second(?! to last)|2nd", "第二|第2"), 1),
    (either("third|3rd", "第三|第3"), 2),
    (either("last|latest|previous|most recent|prior", "最后|上一|上个|前一|最近|最新|刚才|刚刚"), -1),
)
_POINTERS = tuple(
    (re.compile(rf"(?:{pattern.pattern})(?:[个单笔张件次]|(?<=[a-z])(?: ones?)?\b)?", re.IGNORECASE), at)
    for pattern, at in _ORDINALS
)
_NUMBER = either("numbers?|ids?|codes?", "编号|号码|[单票]?号")
MORE_THAN_ITS_NAME = 2.0
"""Weight of a tool's words in a question, beyond what names the thing itself."""
_NOUN = re.compile(
    r"(?:first|second|third|last|latest|previous|which|what)\s+(?P<en>(?!did|have|was|is|i\b)[a-z]+)"
    r"|第[一二三四五]个(?P<nth>[\u4e00-\u9fff]{1,4}?)(?:号|编|是|呢|$)|(?:哪个|什么)(?P<which>[\u4e00-\u9fff]{1,3}?)(?:号|$)"
    r"|[问查]的(?P<of>[\u4e00-\u9fff]{1,4}?)(?:号|编|是)",
    re.IGNORECASE,
)

_CLAUSE = r"[^,，。;!?\n]"
_STATED = (
    re.compile(r"\bmy (?P<what>[a-z][a-z ]{0,30}?) (?:is|are|was|=) (?P<value>[^.,;!?\n]{1,80})", re.IGNORECASE),
    re.compile(
        r"\b(?:call me|i am|i'm|this is) (?P<value>[A-Z][\w'-]{0,30}(?: [A-Z][\w'-]{0,30})?)(?=\s*(?:[.,;!?]|$|and\b))"
    ),
    re.compile(rf"我的(?P<what>[\u4e00-\u9fff]{{1,10}}?)(?:是|叫)(?P<value>{_CLAUSE}{{1,40}})"),
    re.compile(rf"我(?:叫|名叫|姓)(?P<value>{_CLAUSE}{{1,20}})"),
)
_MINE = r"my (?P<what>[a-z][a-z ]{0,30}?)"
_ASKED = (
    re.compile(rf"\bwhat(?:'s| is| was| are) {_MINE}(?: again)?\s*\??$", re.IGNORECASE),
    re.compile(rf"\b(?:remember|know|recall|tell me|say) (?:what )?{_MINE}(?: is| again)?\s*\??$", re.IGNORECASE),
    re.compile(r"\bwho am i\b|what am i called", re.IGNORECASE),
    re.compile(r"我的(?P<what>[\u4e00-\u9fff]{1,10}?)(?:是|叫)(?:什么|哪|谁|多少|几)"),
    re.compile(r"我(?:叫|是|姓)(?:什么|谁|啥)|记得我(?:叫|是|的名字)"),
)
_NAMES = frozenset({"name", "名字", "姓名", ""})


def recollection(text: str, conversation: Conversation, tools: Sequence[Tool]) -> str | None:
    """The answer to a question about what was said before; None where it is not one."""
    fact = _fact(text, conversation)
    if fact is not None:
        return fact
    if not (_EARLIER.search(text) and _ASKS.search(text)) or _asks_a_state(text, tools):
        return None
    phrases = phrases_for(text)
    identifiers = [] if _QUESTIONS.search(text) else _identifiers(text, conversation, tools)
    if identifiers:
        return _told(text, identifiers, phrases, identifying=True)
    said = [" ".join(turn.said.split())[:200] for turn in conversation.earlier]
    return _told(text, said, phrases, identifying=False) if said else phrases.none_before


def statement(text: str) -> str | None:
    """The acknowledgement of a fact that the user states; None where the message is none."""
    if ASKED_IN_A_REMARK.search(text):
        return None
    stated = next((match for pattern in _STATED if (match := pattern.search(text))), None)
    return phrases_for(text).noted.format(stated.group().strip()) if stated else None


def nth(text: str, count: int) -> int | None:
    """The index that an ordinal in `text` means among `count`; None without one, or where there are fewer."""
    index = _ordinal(text)
    return None if index is None or index >= count else index


def without_ordinal(text: str) -> str:
    """The text without the words by which it points at one of several."""
    for pattern in (OTHER, *(pattern for pattern, _ in _POINTERS)):
        text = pattern.sub(" ", text)
    return text


def has_ordinal(text: str) -> bool:
    """Whether the text points at one of several."""
    return without_ordinal(text) != text


def _asks_a_state(text: str, tools: Sequence[Tool]) -> bool:
    """Whether it asks for more than which thing was spoken of: "the status of the order I asked about"."""
    bare = _NUMBER.sub(" ", _EARLIER.sub(" ", text))
    return any(overlap(bare, tool.words) >= MORE_THAN_ITS_NAME for tool in tools if tool.identifier)


def _ordinal(text: str) -> int | None:
    return next((index for pattern, index in _ORDINALS if pattern.search(text)), None)


def _identifiers(text: str, conversation: Conversation, tools: Sequence[Tool]) -> list[str]:
    """The identifiers of earlier turns in order: those of the tool that the question speaks of, else of all."""
    found: dict[str, dict[str, None]] = {}
    for tool in tools:
        parameter = tool.identifier
        if parameter is not None:
            values = conversation.values_of(parameter, tool.name)
            found[tool.name] = dict.fromkeys(str(value) for turn in values for value in turn)
    named = [tool.name for tool in tools if found.get(tool.name) and overlap(text, tool.words) > 0]
    return list(dict.fromkeys(value for name in named[:1] or found for value in found[name]))


def _told(text: str, things: list[str], phrases: Phrases, *, identifying: bool) -> str:
    index = nth(text, len(things))
    if index is None and (_ALL.search(text) or not identifying or _ordinal(text) is not None):
        listed = things if identifying else [f"“{thing}”" for thing in things]
        return (phrases.identifiers if identifying else phrases.messages).format(phrases.between.join(listed))
    index = -1 if index is None else index
    ordinal = phrases.last if index == -1 else phrases.ordinals[index]
    if not identifying:
        return phrases.message_at.format(ordinal, things[index])
    noun = _NOUN.search(text)
    return phrases.identifier_at.format(ordinal, (noun and noun[noun.lastgroup or 0]) or phrases.one, things[index])


def _fact(text: str, conversation: Conversation) -> str | None:
    """What the user told of themselves, where that is asked for."""
    asked = next((match for pattern in _ASKED if (match := pattern.search(text))), None)
    if asked is None:
        return None
    what = (asked.groupdict().get("what") or "").strip().lower()
    for turn in reversed(conversation.earlier):
        for pattern in _STATED:
            for match in pattern.finditer(turn.text):
                told = (match.groupdict().get("what") or "").strip().lower()
                if told == what or {told, what} <= _NAMES:
                    return phrases_for(text).fact.format(match.group().strip())
    return phrases_for(text).no_name if what in _NAMES else None
