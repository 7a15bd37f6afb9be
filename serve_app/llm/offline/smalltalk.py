"""How is a message answered that asks for nothing to be looked up?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from serve_app.llm.offline.phrases import phrases_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve_app.llm.offline.schema import Tool

MAX_CHARACTERS = 80

_WHO = (
    r"(?:and )?(?:who|what|which model|what kind of (?:ai|bot|model)) (?:exactly )?(?:are|r) (?:you|u)(?: called)?"
    r"|what(?:'s| is) your name|introduce yourself|(?:tell me )?about yourself|tell me who you are"
    r"|what (?:all )?(?:can|do|could) you (?:do|help(?: me)? with|know)(?: for me)?"
    r"|how (?:can|do|could) you help(?: me)?|can you help(?: me)?|help(?: me)?|are you (?:an? |the )?[a-z ]{1,24}"
    r"|which (?:language )?model (?:are you|is this)"
    r"|你(?:到底)?(?:是|叫)(?:谁|什么(?:名字|模型|人|东西)?|哪个模型)|您(?:是谁|叫什么(?:名字)?)"
    r"|你是(?:不是)?[\w ]{1,12}吗"
    r"|[你您](?:能|可以|会|都能|都会)(?:为我|帮我|帮助我)?(?:做|干|帮|查)?(?:些|点)?(?:什么|啥|哪些事|哪些)"
    r"|[你您]有(?:什么|哪些)(?:功能|能力|工具|用)|(?:请)?(?:自我介绍|介绍(?:一下)?你?自己)(?:一下)?|帮助"
)
_BYE = (
    r"good ?bye|bye(?: bye)?|see (?:you|ya)(?: later| soon)?|farewell|good night"
    r"|再见|拜拜|回头见|晚安|下次见"
)
_THANKS = (
    r"(?:many |ok(?:ay)? )?thanks(?: a lot| so much| again| for (?:the|your) help)?|thx|ty|cheers|much appreciated"
    r"|thank (?:you|u)(?: so much| very much)?"
    r"|(?:非常|多谢|十分)?(?:感谢|谢谢)(?:你|您|啦|了)?(?:的帮助)?|多谢|谢了|辛苦了"
)
_GREETING = (
    r"h(?:i|ello|ey|iya)(?: there)?|howdy|greetings|good (?:morning|afternoon|evening|day)|what'?s up"
    r"|how are you(?: doing)?|nice to meet you"
    r"|你好|您好|大家好|嗨|哈喽|哈啰|早上好|早安|上午好|中午好|下午好|晚上好|早|在吗|在么|有人吗|你好吗"
)
_UNDERSTOOD = (
    r"ok(?:ay)?|(?:all )?right|great|good|nice|cool|perfect|fine|i see|got it|understood|yes|no|yep|nope|sure"
    r"|never ?mind|好的?|行|嗯+|可以|明白了?|知道了|了解了?|收到|没事了?|不用了|是的|没有了|不是|哦"
)
_KINDS = {"who": _WHO, "bye": _BYE, "thanks": _THANKS, "greeting": _GREETING, "understood": _UNDERSTOOD}
_PARTS = re.compile(
    "(?:" + "|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _KINDS.items()) + r")(?=[^a-z0-9]|$)", re.IGNORECASE
)
_FILLER = re.compile(
    r"[\W_]|\b(?:there|everyone|all|assistant|bot|friend|sir|madam|please|and|then|so|oh|well|to you)\b"
    r"|请问|[呀啊哦吧呢啦]",
    re.IGNORECASE,
)
_LEADING = re.compile(r"^[\s,.!~。]+")
_LETTER = re.compile(r"[^\W_]")


def small_talk(text: str, tools: Sequence[Tool]) -> str | None:
    """The answer to a greeting, thanks, a farewell or a question about the model itself; None for anything else."""
    if len(text) > MAX_CHARACTERS:
        return None
    phrases = phrases_for(text)
    if not _LETTER.search(text):
        return phrases.empty
    kinds = set()
    position = 0
    while match := _next_part(text, position):
        kinds.add(match.lastgroup)
        position = match.end()
    if not kinds or not _is_filler(text[position:]):
        return None
    return _answer(text, next(kind for kind in _KINDS if kind in kinds), tools)


def without_greeting(text: str) -> str:
    """The text without a greeting or thanks at its beginning."""
    match = _next_part(text, 0)
    if match is None or match.lastgroup not in {"greeting", "thanks", "understood"}:
        return text
    return _LEADING.sub("", text[match.end() :]) or text


def _next_part(text: str, position: int) -> re.Match[str] | None:
    """The part of small talk that comes next, with nothing but filler before it."""
    while position < len(text):
        if match := _PARTS.match(text, position):
            return match
        filler = _FILLER.match(text, position)
        if filler is None:
            return None
        position = filler.end()
    return None


def _is_filler(text: str) -> bool:
    return not _FILLER.sub("", text)


def _answer(text: str, kind: str, tools: Sequence[Tool]) -> str:
    phrases = phrases_for(text)
    if kind != "who":
        said = {
            "bye": phrases.farewell,
            "thanks": phrases.thanks,
            "greeting": phrases.greeting,
            "understood": phrases.understood,
        }
        return said[kind]
    names = phrases.between.join(tool.name for tool in tools)
    return f"{phrases.introduction} {phrases.tools.format(names) if names else phrases.no_tools}"
