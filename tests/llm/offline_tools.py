"""Tools, earlier turns and calls of the offline model for its tests."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from serve_app.llm.offline import OfflineModel

Calls = list[tuple[str, dict[str, Any]]]


def tool(name: str, description: str, required: list[str] | None = None, /, **parameters: Any) -> dict[str, Any]:
    """A function in OpenAI's form; all parameters are required unless said otherwise."""
    schema = {
        "type": "object",
        "properties": parameters,
        "required": list(parameters) if required is None else required,
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


def text(description: str = "", **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


CURRENCIES = ["USD", "EUR", "CNY", "JPY"]
ORDER = tool(
    "order_query",
    "Look up the state of an order by its number: paid, shipped, delivered. 按订单号查询订单状态。",
    order_id=text("The order number. 订单号。", pattern=r"^[Oo][Dd]-\d+$", examples=["OD-20240501"]),
)
SEARCH = tool(
    "knowledge_search",
    "Search the knowledge base (manuals, guides, policies and other documents) for passages that answer a question. "
    "在知识库（手册、指南、政策等文档）中查找能回答问题的段落。",
    query=text("The question to search for, complete in itself. 要查询的完整问题。"),
)
PARCEL = tool("track_parcel", "Track a parcel", tracking_no={"type": "string", "pattern": r"^PX-\d{6}$"})
WEATHER = tool("get_weather", "Get the weather of a city", city=text("City name", examples=["Paris", "北京"]))
CURRENCY = tool(
    "convert_currency",
    "Convert an amount of money between currencies",
    **{"amount": {"type": "number"}, "from": text(enum=CURRENCIES), "to": text(enum=CURRENCIES)},
)
ROOM = tool("room_booking", "Book a meeting room", people={"type": "integer", "description": "How many people attend"})
CLOCK = tool("current_time", "Tell the current date and time / 当前时间")
ALL = [ORDER, SEARCH, PARCEL, WEATHER, CURRENCY, ROOM, CLOCK]


def past(text: str, name: str = "", arguments: dict[str, Any] | None = None, result: str = "") -> list[BaseMessage]:
    """An earlier turn as memory gives it back."""
    if not name:
        return [HumanMessage(text), AIMessage("All right.")]
    call = {"id": "call_0", "name": name, "args": arguments or {}}
    return [
        HumanMessage(text),
        AIMessage("", tool_calls=[call]),
        ToolMessage(result, tool_call_id="call_0"),
        AIMessage(f"It says: {result}"),
    ]


FIRST_ORDER = past("Where is OD-20240501?", "order_query", {"order_id": "OD-20240501"}, "OD-20240501: 已付款 (paid)")
SECOND_ORDER = past(
    "订单OD-20240502到哪了？", "order_query", {"order_id": "OD-20240502"}, "OD-20240502: 已发货 (shipped)"
)
APT = past("How do I configure apt?", "knowledge_search", {"query": "How do I configure apt?"}, '[{"n": 1, "sou')
PARIS = past("What's the weather in Paris?", "get_weather", {"city": "Paris"}, "Sunny, 20 degrees")


def reply(
    question: str, *, after: list[BaseMessage] | None = None, tools: list[dict[str, Any]] | None = None
) -> AIMessage:
    messages = [SystemMessage("You are an assistant."), *(after or []), HumanMessage(question)]
    return OfflineModel().bind_tools(ALL if tools is None else tools).invoke(messages)


def calls(question: str, *, after: list[BaseMessage] | None = None, tools: list[dict[str, Any]] | None = None) -> Calls:
    answered = reply(question, after=after, tools=tools)
    assert bool(answered.tool_calls) is not bool(answered.text), "a reply either calls or speaks"
    return [(call["name"], call["args"]) for call in answered.tool_calls]


def answer(
    question: str, *results: tuple[str, dict[str, Any], str, str], tools: list[dict[str, Any]] | None = None
) -> str:
    """What is said once each `(tool, arguments, content, status)` has come back."""
    calls = [
        {"id": f"c{index}", "name": name, "args": arguments} for index, (name, arguments, *_) in enumerate(results)
    ]
    messages: list[BaseMessage] = [HumanMessage(question), AIMessage("", tool_calls=calls)]
    messages += [
        ToolMessage(content, tool_call_id=f"c{index}", name=name, status=status)
        for index, (name, _, content, status) in enumerate(results)
    ]
    answered = OfflineModel().bind_tools(ALL if tools is None else tools).invoke(messages)
    assert not answered.tool_calls
    return answered.text
