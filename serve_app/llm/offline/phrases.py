"""What does the offline model say, in either language?"""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.llm.offline.words import is_chinese


@dataclass(frozen=True, slots=True)
class Phrases:
    """The sentences of one language."""

    greeting: str
    thanks: str
    farewell: str
    understood: str
    introduction: str
    tools: str
    no_tools: str
    noted: str
    nothing_found: str
    no_result: str
    failed: str
    failed_for: str
    result: str
    result_for: str
    passages: str
    sources: str
    which: str
    for_example: str
    unable: str
    empty: str
    identifier_at: str
    identifiers: str
    message_at: str
    messages: str
    none_before: str
    fact: str
    no_name: str
    ordinals: tuple[str, ...]
    last: str
    one: str
    between: str


ENGLISH = Phrases(
    greeting="Hello! Ask me a question, and I will look the answer up for you.",
    thanks="You're welcome.",
    farewell="Goodbye!",
    understood="All right. Ask me whenever there is something to look up.",
    introduction=(
        "I am the offline model: fixed rules, not a language model, and I do not reason. I match a question against "
        "the tools that I was given, call those that fit, and quote what they return with its sources."
    ),
    tools="My tools: {}.",
    no_tools="At the moment I have no tools.",
    noted="Noted: {}. I can repeat it while this conversation lasts.",
    nothing_found="I found nothing about this in the knowledge base.",
    no_result="The look-up returned nothing.",
    failed="The look-up failed, so I cannot answer this now. Please try again later.",
    failed_for="The look-up for {} failed, so I cannot tell its state now. Please try again later.",
    result="The look-up says: {}",
    result_for="The look-up for {} says: {}",
    passages="This is what the knowledge base says:",
    sources="Sources:",
    which="I need one more detail to look this up: {}.",
    for_example="{} (for example {})",
    unable=(
        "I cannot answer this: I am the offline model, which only looks things up, and none of the tools that I was "
        "given fits the question."
    ),
    empty="I could not make out a question. Please ask in words.",
    identifier_at="The {} {} you asked about is {}.",
    identifiers="You asked about: {}.",
    message_at="Your {} question was: “{}”",
    messages="You asked: {}",
    none_before="I find nothing of the kind earlier in this conversation.",
    fact="You told me: {}.",
    no_name="You have not told me that in this conversation.",
    ordinals=("first", "second", "third", "fourth", "fifth"),
    last="last",
    one="one",
    between=", ",
)

CHINESE = Phrases(
    greeting="您好！请提出您的问题，我来为您查询。",
    thanks="不客气。",
    farewell="再见！",
    understood="好的。有需要查询的内容请随时告诉我。",
    introduction=(
        "我是离线模型：按固定规则工作，不是大语言模型，也不会推理。我把问题与已绑定的工具相匹配，调用合适的工具，"
        "并引用其返回的内容和来源。"
    ),
    tools="我的工具：{}。",
    no_tools="目前没有绑定任何工具。",
    noted="已记下：{}。在本次对话中您可以随时问我。",
    nothing_found="在知识库中没有找到与此相关的内容。",
    no_result="查询没有返回任何结果。",
    failed="查询失败，暂时无法回答这个问题，请稍后再试。",
    failed_for="{} 的查询失败，暂时无法得知其状态，请稍后再试。",
    result="查询结果：{}",
    result_for="{} 的查询结果：{}",
    passages="知识库中的相关内容如下：",
    sources="来源：",
    which="还缺少一项信息，请提供：{}。",
    for_example="{}（例如 {}）",
    unable="我无法回答这个问题：我是离线模型，只能查询，而已绑定的工具都不适用于这个问题。",
    empty="我没有看懂这个问题，请用文字描述。",
    identifier_at="您刚才问的{}{}是 {}。",
    identifiers="您问过：{}。",
    message_at="您的{}问题是：“{}”",
    messages="您问过：{}",
    none_before="在本次对话的前文中没有找到相关内容。",
    fact="您告诉过我：{}。",
    no_name="您在本次对话中还没有告诉我。",
    ordinals=("第一个", "第二个", "第三个", "第四个", "第五个"),
    last="最后一个",
    one="编号",
    between="、",
)


def phrases_for(text: str) -> Phrases:
    """The sentences in the language of `text`."""
    return CHINESE if is_chinese(text) else ENGLISH
