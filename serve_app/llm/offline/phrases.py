"""Sentences and small talk of the offline model, in English and Chinese."""

from __future__ import annotations

import re
import unicodedata

from serve_app.terms import HAN, content_terms

READ_CHARACTERS = 2_000
"""Of a long message the beginning and the end are read: its question stands there."""
SMALL_TALK_CHARACTERS = 60
ASKING_TERMS = content_terms(
    "please check show look find give help again now repeat rid way able 请 查 看 查询 查看 现在"
)
"""Terms of a message that do not say what it is about."""

_HAN = re.compile(f"[{HAN}]")
_LATIN_WORD = re.compile(r"[A-Za-z]+")
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212\ufe63"), "-") | {ord("\u2019"): "'"}


_SENTENCES = {
    "greeting": (
        "Hello! Ask me a question, and I will look the answer up for you.",
        "您好！请提出您的问题，我来为您查询。",
    ),
    "thanks": ("You're welcome.", "不客气。"),
    "farewell": ("Goodbye!", "再见！"),
    "understood": ("All right. Ask me whenever there is something to look up.", "好的。有需要查询的内容请随时告诉我。"),
    "introduction": (
        (
            "I am the offline model: fixed rules, not a language model, and I do not reason. I call a tool "
            "when a message has a value that fits its schema, search for everything else, and quote what "
            "I find. My tools: {}."
        ),
        (
            "我是离线模型：按固定规则工作，不是大语言模型，也不会推理。消息中有符合工具参数格式的内容时，"
            "我调用该工具；其他问题在知识库中检索，并引用找到的内容和来源。我的工具：{}。"
        ),
    ),
    "no_tools": ("none", "无"),
    "no_words": ("I could not make out a question. Please ask in words.", "我没有看懂这个问题，请用文字描述。"),
    "nothing_found": ("I found nothing about this in the knowledge base.", "在知识库中没有找到与此相关的内容。"),
    "no_result": ("The look-up returned nothing.", "查询没有返回任何结果。"),
    "failed": (
        "The look-up failed, so I cannot answer this now. Please try again later.",
        "查询失败，暂时无法回答这个问题，请稍后再试。",
    ),
    "failed_for": (
        "The look-up for {} failed, so I cannot tell its state now. Please try again later.",
        "{} 的查询失败，暂时无法得知其状态，请稍后再试。",
    ),
    "result": ("The look-up says: {}", "查询结果：{}"),
    "result_for": ("The look-up for {} says: {}", "{} 的查询结果：{}"),
    "passages": ("This is what the knowledge base says:", "知识库中的相关内容如下："),
    "sources": ("Sources:", "来源："),
    "missing": ("I need one more detail to look this up: {}.", "还缺少一项信息，请提供：{}。"),
    "for_example": ("{} (for example {})", "{}（例如 {}）"),
    "unable": (
        (
            "I cannot answer this: I am the offline model, which only looks things up, and none of the tools "
            "that I was given fits the question."
        ),
        "我无法回答这个问题：我是离线模型，只能查询，而已绑定的工具都不适用于这个问题。",
    ),
    "recalled_value": ("The {} {} you asked about is {}.", "您刚才问的{}{}是 {}。"),
    "recalled_values": ("You asked about: {}.", "您问过：{}。"),
    "none_before": ("I find nothing of the kind earlier in this conversation.", "在本次对话的前文中没有找到相关内容。"),
    "last": ("last", "最后一个"),
    "one": ("one", "编号"),
    "comma": (", ", "、"),
    "first": ("first", "第一个"),
    "second": ("second", "第二个"),
    "third": ("third", "第三个"),
}
"""Each in English and in Chinese."""

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
    """Normalize width and hyphens, and cut the text to what is read."""
    if len(text) > READ_CHARACTERS:
        quarter = READ_CHARACTERS // 4
        text = f"{text[: 3 * quarter]} {text[-quarter:]}"
    return unicodedata.normalize("NFKC", text).translate(_DASHES)


def is_chinese(text: str) -> bool:
    """Return whether the text is Chinese; it may have some words in Latin letters."""
    han = len(_HAN.findall(text))
    return han > 0 and 2 * han >= len(_LATIN_WORD.findall(text))


def render_phrase(sentence: str, question: str, *values: str) -> str:
    """Return a sentence in the language of the question."""
    return _SENTENCES[sentence][is_chinese(question)].format(*values)


def answer_small_talk(text: str, tool_names: list[str]) -> str | None:
    """Answer a message that is nothing but small talk; None for any other."""
    if not any(map(str.isalnum, text)):
        return render_phrase("no_words", text)
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
    return render_phrase(kind, text, render_phrase("comma", text).join(tool_names) or render_phrase("no_tools", text))
