"""By which words does a message say what kind of message it is?"""

from __future__ import annotations

import re


def either(english: str, chinese: str) -> re.Pattern[str]:
    """One expression for whole English words and for Chinese ones, which have no edges."""
    return re.compile(rf"\b(?:{english})\b|{chinese}", re.IGNORECASE)


REFERS = either(
    "it|its|it's|that|this|they|them|their|those|these|there|same|one|he|she|him|her|his|hers",
    "它|该|此|那个|这个|那单|这单|那里|那边|前者|后者|(?<!其)[他她]",
)
"""It points at something said before."""

PLACE = either(r"(?<!\bis )(?<!\bare )(?<!\bbe )there(?! (?:be|is|are|was|were|will)\b)", "那里|那边|那儿|当地")
"""It points at a place said before."""

OTHER = either("(?:the|that) (?:other|previous|prior)(?: one)?|other one", "另外?[那一]?个|另一|前一个?|前面那个?")
"""It points at the one that was not spoken of last."""

WHICH = either(
    r"which(?: one| of \w+)?(?= (?:has|have|is|are|was|were|did|does|isn't|hasn't|wasn't)\b)", "哪一?[个单笔张件]|哪些"
)
"""It asks to tell several things apart."""

WHY = either("why", "为什么|为何")

PLURAL = either("they|them|their|those|these|both|all", "它们|这些|那些|这两|那两|两个|都|分别")
"""It points at several things said before."""

MINE = either("my|mine|our", "我的|我那|我们的")
"""It is about something of the user's, and not about things of its kind."""

ELLIPSIS = re.compile(
    r"\s*(?:(?:and|but|or|so|then|ok(?:ay)?)[ ,]+)?(?:what|how) about\b"
    r"|\s*(?:and|also|or|plus|but)\b|\s*(?:那么?|还有|另外|然后|以及|换成|换)|.{1,20}呢\s*\??\s*$",
    re.IGNORECASE,
)
"""It leaves out what the message before it said."""

VALUE = re.compile(r"\s*(?:[A-Z][\w.'-]*|\d[\d.,]*)(?: [A-Z][\w.'-]*){0,3}\s*\?\s*$")
"""It is a name or an amount and nothing else."""

HOW_TO = either(
    "how (?:do|does|did|to|can|could|should|would|must)|what (?:is|are) an?|what's an?|what does|why|explain|describe"
    "|what(?:'s| is) the (?:difference|meaning|purpose)|defin(?:e|ition)",
    "怎么(?!样|还|没|这)|(?:如何|怎样)(?!\\s*(?:[?。!,;]|$)|了|呢|啊|呀)|为什么|什么是|是什么意思|有什么区别|什么叫",
)
"""It asks for an explanation, which a document holds and a look-up does not; 如何 at an end asks how something is."""

LOOKING_UP = either(
    "(?:look|get|query|check|find|search|show|list|fetch|retrieve|read|track|status|state|tell|return)s?",
    "查|获取|读取|状态",
)
"""Of a tool's description: it changes nothing."""

REMARK = re.compile(
    r"\s*(?:i(?:'m| am|'ve| have| like| love| hate| feel| think| was| went| live)|(?:it|this|that)(?:'s| is| was)"
    r"|you(?:'re| are))\b|\s*我(?:喜欢|爱|觉得|认为|住|很|今天|昨天|刚)",
    re.IGNORECASE,
)
"""It begins as a statement, whatever verb of a question follows."""

ASKED_IN_A_REMARK = either("who|what|when|where|which|why|how|whose|can|could|would", r"\?|吗|什么|怎|如何|哪|谁|多少")

_ASKING = (
    r"(?:who|what|when|where|which|why|how|whose|is|are|was|were|do|does|did|can|could|will|would|should|has|have|may)"
)
ASKS_FIRST = re.compile(
    rf"\s*{_ASKING}(?:'s|n't)?\b|.*(?:吗|呢|什么|怎|如何|哪|谁|几|多[少久长大远]|为何|是否|有没有|能不能)",
    re.IGNORECASE,
)
"""A clause that is a question of its own: the English ones begin as such."""

CLAUSE_END = re.compile(
    rf"\.(?=\s|$)|[?!;,。\n]|\b(?:and|but)\s+(?=(?:also\s+)?{_ASKING}\b)|另外(?!那?一?个)|此外|顺便", re.IGNORECASE
)
"""Where a message may go on to another question."""

LEAD_IN = re.compile(
    r"\s*(?:(?:and|also|but|plus|so|then|oh|btw|by the way|additionally|furthermore|one more thing|another question)\b"
    r"[\s,:]*)+"
    r"|\s*(?:另外|还有|顺便|此外|以及|然后|还想|想|再|请)*(?:问(?:一下|下)?)?(?:请问)?[\s,:]*",
    re.IGNORECASE,
)
"""What a further question begins with that is no part of it."""
