"""Sentences of the offline model in English and Chinese, and the small talk that it answers."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from serve_app.terms import content_terms

READ_CHARACTERS = 2_000
"""Of a long message the beginning and the end are read: its question stands there."""
SMALL_TALK_CHARACTERS = 60
ASKING_TERMS = content_terms(
    "please check show look find give help again now repeat rid way able 请 查 看 查询 查看 现在"
)
"""Terms of a message that say nothing of what it is about."""

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LATIN_WORD = re.compile(r"[A-Za-z]+")
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212\ufe63"), "-") | {ord("\u2019"): "'"}


@dataclass(frozen=True, slots=True)
class Phrases:
    """The sentences of one language."""

    greeting: str
    thanks: str
    farewell: str
    understood: str
    introduction: str
    no_tools: str
    no_words: str
    nothing_found: str
    no_result: str
    failed: str
    failed_for: str
    result: str
    result_for: str
    passages: str
    sources: str
    missing: str
    for_example: str
    unable: str
    value_at: str
    values: str
    none_before: str
    ordinals: tuple[str, str, str]
    last: str
    one: str
    comma: str


ENGLISH = Phrases(
    greeting="Hello! Ask me a question, and I will look the answer up for you.",
    thanks="You're welcome.",
    farewell="Goodbye!",
    understood="All right. Ask me whenever there is something to look up.",
    introduction=(
        "I am the offline model: fixed rules, not a language model, and I do not reason. I call a tool when a message "
        "has a value that fits its schema, search for everything else, and quote what I find. My tools: {}."
    ),
    no_tools="none",
    no_words="I could not make out a question. Please ask in words.",
    nothing_found="I found nothing about this in the knowledge base.",
    no_result="The look-up returned nothing.",
    failed="The look-up failed, so I cannot answer this now. Please try again later.",
    failed_for="The look-up for {} failed, so I cannot tell its state now. Please try again later.",
    result="The look-up says: {}",
    result_for="The look-up for {} says: {}",
    passages="This is what the knowledge base says:",
    sources="Sources:",
    missing="I need one more detail to look this up: {}.",
    for_example="{} (for example {})",
    unable=(
        "I cannot answer this: I am the offline model, which only looks things up, and none of the tools that I was "
        "given fits the question."
    ),
    value_at="The {} {} you asked about is {}.",
    values="You asked about: {}.",
    none_before="I find nothing of the kind earlier in this conversation.",
    ordinals=("first", "second", "third"),
    last="last",
    one="one",
    comma=", ",
)
CHINESE = Phrases(
    greeting="您好！请提出您的问题，我来为您查询。",
    thanks="不客气。",
    farewell="再见！",
    understood="好的。有需要查询的内容请随时告诉我。",
    introduction=(
        "我是离线模型：按固定规则工作，不是大语言模型，也不会推理。消息中有符合工具参数格式的内容时，我调用该工具；"
        "其他问题在知识库中检索，并引用找到的内容和来源。我的工具：{}。"
    ),
    no_tools="无",
    no_words="我没有看懂这个问题，请用文字描述。",
    nothing_found="在知识库中没有找到与此相关的内容。",
    no_result="查询没有返回任何结果。",
    failed="查询失败，暂时无法回答这个问题，请稍后再试。",
    failed_for="{} 的查询失败，暂时无法得知其状态，请稍后再试。",
    result="查询结果：{}",
    result_for="{} 的查询结果：{}",
    passages="知识库中的相关内容如下：",
    sources="来源：",
    missing="还缺少一项信息，请提供：{}。",
    for_example="{}（例如 {}）",
    unable="我无法回答这个问题：我是离线模型，只能查询，而已绑定的工具都不适用于这个问题。",
    value_at="您刚才问的{}{}是 {}。",
    values="您问过：{}。",
    none_before="在本次对话的前文中没有找到相关内容。",
    ordinals=("第一个", "第二个", "第三个"),
    last="最后一个",
    one="编号",
    comma="、",
)

_SMALL_TALK = {
    "introduction": (
        r"(?:who|what) are you|what(?:'s| is) your name|introduce yourself|what can you do(?: for me)?|help"
        r"|(?:how )?can you help(?: me)?|are you (?:an? |the )?[a-z ]{1,24}"
        r"|[你您](?:是谁|是什么|叫什么名字|[能会](?:帮我)?做什么)|你是[\w ]{1,12}吗|(?:请)?自我介绍|帮助"
    ),
    "farewell": r"good ?bye|bye(?: bye)?|see you(?: later)?|good night|再见|拜拜|晚安",
    "thanks": r"(?:many )?thanks(?: a lot)?|thank you(?: very much)?|thx|(?:非常)?(?:感谢|谢谢)[你您]?|多谢",
    "greeting": (
        r"h(?:i|ello|ey)(?: there)?|good (?:morning|afternoon|evening|day)|how are you"
        r"|[你您]好|大家好|嗨|早上好|上午好|下午好|晚上好|在吗|有人吗"
    ),
    "understood": r"ok(?:ay)?|all right|great|good|i see|got it|yes|no|sure|好的?|行|可以|明白|知道了|没事",
}
_PARTS = re.compile(
    "(?:" + "|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _SMALL_TALK.items()) + r")(?![a-z0-9])",
    re.IGNORECASE,
)
_FILLER = re.compile(
    r"[\W_]+|(?:please|and|then|so|oh|well|everyone|sir|madam)(?![a-z0-9])|请问|[呀啊哦吧呢啦了]", re.IGNORECASE
)


def normalize_message(text: str) -> str:
    """Returns the text in one width and with one kind of hyphen, cut to what is read."""
    if len(text) > READ_CHARACTERS:
        quarter = READ_CHARACTERS // 4
        text = f"{text[: 3 * quarter]} {text[-quarter:]}"
    return unicodedata.normalize("NFKC", text).translate(_DASHES)


def is_chinese(text: str) -> bool:
    """Returns whether a reader takes `text` for Chinese; some names in Latin letters do not change that."""
    han = len(_HAN.findall(text))
    return han > 0 and 2 * han >= len(_LATIN_WORD.findall(text))


def phrases_for(text: str) -> Phrases:
    """Returns the sentences in the language of `text`."""
    return CHINESE if is_chinese(text) else ENGLISH


def answer_small_talk(text: str, tool_names: list[str]) -> str | None:
    """Returns the answer to a message that is small talk from beginning to end; None for any other."""
    phrases = phrases_for(text)
    if not any(map(str.isalnum, text)):
        return phrases.no_words
    kinds, place = [], 0
    while place < len(text) <= SMALL_TALK_CHARACTERS:
        if part := _PARTS.match(text, place):
            kinds.append(str(part.lastgroup))
        elif (part := _FILLER.match(text, place)) is None:
            return None
        place = part.end()
    if not kinds or place < len(text):
        return None
    kind = next(each for each in _SMALL_TALK if each in kinds)
    names = phrases.comma.join(tool_names) or phrases.no_tools
    return str(getattr(phrases, kind)).format(names)
