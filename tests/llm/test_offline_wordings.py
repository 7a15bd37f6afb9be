"""Is the right tool called with the right arguments, however it is asked for?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from langchain_core.tools import tool as langchain_tool
from offline_tools import (
    ALL,
    APT,
    FIRST_ORDER,
    ORDER,
    PARIS,
    SEARCH,
    SECOND_ORDER,
    calls,
    past,
    reply,
    text,
    tool,
)

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

FIRST, SECOND = "OD-20240501", "OD-20240502"


def _orders(*numbers: str) -> list[tuple[str, dict[str, Any]]]:
    return [("order_query", {"order_id": number}) for number in numbers]


@pytest.mark.parametrize(
    ("question", "numbers"),
    [
        ("Where is my order OD-20240502?", [SECOND]),
        ("查一下OD-20240501", [FIRST]),
        ("OD-20240502 shipped yet?", [SECOND]),
        ("订单OD-20240502到哪了?", [SECOND]),
        ("那OD-20240501呢?", [FIRST]),
        ("order od-20240502 status", [SECOND]),
        ("订单ＯＤ－２０２４０５０２到哪了？", [SECOND]),
        ("OD-20240502发货了吗", [SECOND]),
        ("OD-20240501", [FIRST]),
        ("OD–20240501?", [FIRST]),
        ("What about OD 20240502?", [SECOND]),
        ("od20240501", [FIRST]),
        ("hi, where's OD-20240501", [FIRST]),
        ("我的订单号是OD-20240502，发货了没有？", [SECOND]),
        ("订单号:OD-20240501", [FIRST]),
        ("Is OD-99999999 paid?", ["OD-99999999"]),
        ("OD-1 and OD-2?", ["OD-1", "OD-2"]),
        ("OD-20240501和OD-20240502的状态", [FIRST, SECOND]),
        ("Compare OD-20240501, od-20240502 and OD-20240501", [FIRST, SECOND]),
        ('Please check "OD-20240501".', [FIRST]),
        ("Could you tell me whether OD-20240502 has already been delivered to Berlin?", [SECOND]),
        ("How do I find out where OD-20240502 is?", [SECOND]),
    ],
)
def test_an_order_that_is_named_is_looked_up(question: str, numbers: list[str]) -> None:
    assert calls(question) == _orders(*numbers)


@pytest.mark.parametrize(
    ("after", "question", "numbers"),
    [
        (FIRST_ORDER, "has it shipped?", [FIRST]),
        (FIRST_ORDER, "shipped yet?", [FIRST]),
        (FIRST_ORDER, "and when will it arrive?", [FIRST]),
        (FIRST_ORDER, "status?", [FIRST]),
        (FIRST_ORDER, "how about now", [FIRST]),
        (FIRST_ORDER, "Why hasn't it shipped?", [FIRST]),
        (FIRST_ORDER, "Is this order paid?", [FIRST]),
        (FIRST_ORDER, "When can I expect delivery?", [FIRST]),
        (FIRST_ORDER, "has my package arrived?", [FIRST]),
        (FIRST_ORDER, "check it again", [FIRST]),
        (SECOND_ORDER, "请再查一次", [SECOND]),
        (SECOND_ORDER, "物流呢", [SECOND]),
        (SECOND_ORDER, "发货了吗", [SECOND]),
        (SECOND_ORDER, "那它呢", [SECOND]),
        (SECOND_ORDER, "什么时候到？", [SECOND]),
        (SECOND_ORDER, "怎么还没到", [SECOND]),
        (SECOND_ORDER, "这个订单付款了没有", [SECOND]),
        (FIRST_ORDER + SECOND_ORDER, "到哪了", [SECOND]),
        (SECOND_ORDER + FIRST_ORDER, "has the first one shipped?", [SECOND]),
        (SECOND_ORDER + FIRST_ORDER, "第一个订单发货了吗", [SECOND]),
        (FIRST_ORDER + SECOND_ORDER, "它们都发货了吗？", [FIRST, SECOND]),
        (FIRST_ORDER + APT, "has it shipped?", [FIRST]),
        (FIRST_ORDER + APT, "has my order been delivered?", [FIRST]),
        (FIRST_ORDER + past("thanks"), "has it shipped?", [FIRST]),
        (past("My order is OD-20240502."), "has my order shipped?", [SECOND]),
    ],
)
def test_an_order_named_earlier_is_understood(after: list[BaseMessage], question: str, numbers: list[str]) -> None:
    assert calls(question, after=after) == _orders(*numbers)


@pytest.mark.parametrize(
    ("question", "number"),
    [
        ("那第一个呢？", FIRST),
        ("and the first?", FIRST),
        ("what about the first?", FIRST),
        ("第一个呢", FIRST),
        ("Has the order I asked about first been shipped?", FIRST),
        ("Can you repeat the first order's status?", FIRST),
        ("我先问的那个订单发货了吗", FIRST),
        ("and the second?", SECOND),
        ("第二个呢", SECOND),
        ("第二个发货了吗", SECOND),
        ("前一个呢", FIRST),
        ("另一个呢？", FIRST),
        ("what about the other one?", FIRST),
        ("the other order?", FIRST),
        ("那另外一个订单呢", FIRST),
        ("and the last one?", SECOND),
        ("repeat please", SECOND),
        ("再说一遍", SECOND),
    ],
)
def test_one_of_several_orders_is_pointed_at(question: str, number: str) -> None:
    assert calls(question, after=FIRST_ORDER + SECOND_ORDER) == _orders(number)


def test_the_other_one_is_that_which_was_not_asked_about_last() -> None:
    assert calls("what about the other one?", after=FIRST_ORDER + SECOND_ORDER + FIRST_ORDER) == _orders(SECOND)
    assert calls("the last one?", after=FIRST_ORDER + SECOND_ORDER + FIRST_ORDER) == _orders(FIRST)


@pytest.mark.parametrize(
    "question",
    [
        "Which one has shipped?",
        "哪个发货了？",
        "哪一个还没发货",
        "which of them is paid?",
        "两个都发货了吗？",
        "哪个已付款?",
    ],
)
def test_a_question_which_of_several_looks_all_of_them_up(question: str) -> None:
    assert calls(question, after=FIRST_ORDER + SECOND_ORDER) == _orders(FIRST, SECOND)
    assert calls(question, after=SECOND_ORDER) == _orders(SECOND)


@pytest.mark.parametrize("after", [[], FIRST_ORDER, SECOND_ORDER])
@pytest.mark.parametrize(
    "question",
    [
        "How do I configure apt?",
        "apt怎么配置？",
        "如何安装软件包",
        "怎么查看磁盘空间",
        "apt pinning",
        "What is a package manager?",
        "Which file lists the mounted file systems?",
        "Tell me about systemd",
        "What is the return policy?",
        "退货政策是什么",
        "football world cup",
        "How do I set the time zone in Debian?",
        "How do I descale the kettle?",
        "水壶怎么除垢？",
        "保修期是多久？",
        "Can UTF-8 be the default?",
        "What changed in version 2.6.18?",
        "Which shipping options are available?",
        "How do I book a meeting room for 5 people?",
        "How is the package delivered to the mirror?",
        "What is the order of mount operations at boot?",
        "What is the status of the Debian stable release?",
        "怎么查看服务的状态",
        "How can I convert a file from ISO-8859-1 to UTF-8?",
        "What time does cron run daily jobs?",
        "系统启动的顺序是什么",
    ],
)
def test_a_question_is_searched_for_even_after_an_order(after: list[BaseMessage], question: str) -> None:
    ((name, arguments),) = calls(question, after=after)
    assert name == "knowledge_search"
    assert arguments == {"query": question.replace("？", "?")}


@pytest.mark.parametrize(
    "row", json.loads((Path(__file__).parents[1] / "knowledge" / "questions.json").read_text("utf-8"))
)
def test_the_questions_of_the_retrieval_test_reach_the_search(row: dict[str, Any]) -> None:
    assert [name for name, _ in calls(row["question"], after=FIRST_ORDER)] == ["knowledge_search"]


@pytest.mark.parametrize(
    ("question", "added"),
    [("and on Debian?", "Debian"), ("How do I remove it?", "remove"), ("why?", "why"), ("那在Ubuntu上呢？", "Ubuntu")],
)
def test_a_follow_up_to_a_search_is_made_complete(question: str, added: str) -> None:
    ((name, arguments),) = calls(question, after=APT)
    assert name == "knowledge_search"
    assert "configure apt" in arguments["query"]
    assert added in arguments["query"]


def test_an_order_and_a_question_in_one_message_are_both_looked_up() -> None:
    assert [name for name, _ in calls("Where is OD-20240501? And how do I configure apt?")] == [
        "order_query",
        "knowledge_search",
    ]
    assert [name for name, _ in calls("OD-20240501发货了吗？apt怎么配置？")] == ["order_query", "knowledge_search"]
    assert calls("Where is OD-20240501? I need it soon.") == _orders(FIRST)


@pytest.mark.parametrize(
    ("question", "number", "query"),
    [
        ("Where is OD-20240502 and how do I install a package?", SECOND, "how do I install a package"),
        ("Where is OD-20240501 and how do I return it?", FIRST, "how do I return it"),
        ("OD-20240502到哪了,另外如何安装软件包?", SECOND, "如何安装软件包"),
        ("订单 OD-20240501 发货了吗？另外保修期多久？", FIRST, "保修期多久"),
        ("OD-20240501发货了吗?保修多久?", FIRST, "保修多久"),
        ("OD-20240501付款了吗?退货政策是什么?", FIRST, "退货政策是什么"),
        ("OD-20240501 and what's the return policy?", FIRST, "what's the return policy"),
        ("DependencyCheck OD-20240501. What is the warranty?", FIRST, "What is the warranty"),
        ("Is OD-20240502 shipped? How can I pay?", SECOND, "How can I pay"),
        ("OD-20240501? Also, how long is the warranty?", FIRST, "how long is the warranty"),
        ("OD-20240501到哪了?顺便问下,水壶怎么除垢?", FIRST, "水壶怎么除垢"),
        ("Is OD-20240501 paid and can I use vinegar to descale?", FIRST, "can I use vinegar to descale"),
        ("订单OD-20240501到哪了,怎么退货?", FIRST, "怎么退货"),
    ],
)
def test_the_second_question_of_a_message_is_searched_for(question: str, number: str, query: str) -> None:
    assert calls(question) == [*_orders(number), ("knowledge_search", {"query": query})]


@pytest.mark.parametrize(
    "question",
    [
        "Is OD-20240501 paid, and when will it arrive?",
        "Where is OD-20240501? Why is it so late?",
        "OD-20240501付款了吗?什么时候到?",
        "订单OD-20240501的状态如何?",
    ],
)
def test_a_second_question_about_the_same_order_is_no_other(question: str) -> None:
    assert calls(question) == _orders(FIRST)


@pytest.mark.parametrize(
    ("question", "name", "arguments"),
    [
        ("Where is parcel PX-123456?", "track_parcel", {"tracking_no": "PX-123456"}),
        ("px-123456", "track_parcel", {"tracking_no": "PX-123456"}),
        ("PX-123456到哪了", "track_parcel", {"tracking_no": "PX-123456"}),
        ("What's the weather in Paris?", "get_weather", {"city": "Paris"}),
        ("weather in new york today", "get_weather", {"city": "new york"}),
        ("Is it raining in Berlin?", "get_weather", {"city": "Berlin"}),
        ("北京今天天气怎么样？", "get_weather", {"city": "北京"}),
        ("上海明天会下雨吗", "get_weather", {"city": "上海"}),
        ("convert 100 USD to EUR", "convert_currency", {"amount": 100, "from": "USD", "to": "EUR"}),
        ("How much is 100 dollars in euros?", "convert_currency", {"amount": 100, "from": "USD", "to": "EUR"}),
        ("把100美元换成人民币", "convert_currency", {"amount": 100, "from": "USD", "to": "CNY"}),
        ("Convert to JPY from EUR: 1,250.50", "convert_currency", {"amount": 1250.5, "from": "EUR", "to": "JPY"}),
        ("3万日元兑换人民币", "convert_currency", {"amount": 30000, "from": "JPY", "to": "CNY"}),
        ("Book a meeting room for 8 people", "room_booking", {"people": 8}),
        ("Book a room for twelve", "room_booking", {"people": 12}),
        ("订一个8人的会议室", "room_booking", {"people": 8}),
        ("预订会议室，十二个人", "room_booking", {"people": 12}),
        *(
            (wording.format(city), "get_weather", {"city": city})
            for city in ("成都", "都江堰", "和田", "哈瓦那", "北京")
            for wording in (
                "{}的天气如何",
                "{}天气怎样？",
                "帮我查一下{}天气",
                "{}今天热吗",
                "请问{}现在多少度",
                "明天{}会下雨吗?",
            )
        ),
        *(
            (f"What's the weather in {city}?", "get_weather", {"city": city})
            for city in ("New York City", "Salt Lake City", "Cape Town", "St. Louis", "Stratford-upon-Avon")
        ),
        ("What's the weather in Washington, D.C.?", "get_weather", {"city": "Washington, D.C."}),
        ("How is the weather in The Hague today?", "get_weather", {"city": "The Hague"}),
        ("weather in new york city today", "get_weather", {"city": "new york city"}),
        ("is it cold in Oslo", "get_weather", {"city": "Oslo"}),
        ("What time is it?", "current_time", {}),
        ("现在几点了", "current_time", {}),
        ("今天几号？", "current_time", {}),
    ],
)
def test_other_tools_are_called_by_their_schemas(question: str, name: str, arguments: dict[str, Any]) -> None:
    assert calls(question) == [(name, arguments)]


@pytest.mark.parametrize(
    ("question", "city"),
    [
        ("And in London?", "London"),
        ("那上海呢？", "上海"),
        ("what about Tokyo?", "Tokyo"),
        ("Munich?", "Munich"),
        ("那边冷吗", "Paris"),
        ("how about there next week", "Paris"),
        ("Is it raining there?", "Paris"),
    ],
)
def test_a_follow_up_calls_the_same_tool_with_what_changed(question: str, city: str) -> None:
    assert calls(question, after=PARIS) == [("get_weather", {"city": city})]


@pytest.mark.parametrize(
    ("question", "cities"),
    [
        ("weather in Paris and Rome", ["Paris", "Rome"]),
        ("Is it raining in Oslo, New York City and Rome?", ["Oslo", "New York City", "Rome"]),
        ("北京和上海的天气", ["北京", "上海"]),
        ("北京、上海和成都的天气怎么样", ["北京", "上海", "成都"]),
        ("呼和浩特的天气", ["呼和浩特"]),
    ],
)
def test_several_values_are_several_calls(question: str, cities: list[str]) -> None:
    assert calls(question) == [("get_weather", {"city": city}) for city in cities]


def test_how_many_days_and_where_are_told_apart() -> None:
    forecast = tool("forecast", "查询城市天气预报", ["city"], city=text("城市"), days={"type": "integer", "minimum": 1})
    for question in ("未来3天杭州的天气", "杭州未来三天天气"):
        assert calls(question, tools=[forecast, SEARCH]) == [("forecast", {"days": 3, "city": "杭州"})]


def test_of_two_tools_that_a_follow_up_fits_the_one_called_last_is_meant() -> None:
    parcel = tool("parcel", "查询包裹的物流位置。", tracking_no=text(pattern=r"^PX-\d{6}$"))
    asked = past("PX-123456在哪", "parcel", {"tracking_no": "PX-123456"}, "杭州")
    bound = [ORDER, parcel, SEARCH]
    assert calls("到哪了？", after=SECOND_ORDER + asked, tools=bound) == [("parcel", {"tracking_no": "PX-123456"})]
    assert calls("到哪了？", after=asked + SECOND_ORDER, tools=bound) == _orders(SECOND)


FLIGHT = tool("flight_status", "Tell whether a flight is on time", flight_no=text("Flight number, e.g. CA1831"))
IN_WORDS = tool("lookup", "查询订单", oid=text("订单编号，格式 OD-加8位数字"))
UNDESCRIBED = tool("order_status", "Get the status of an order.", order_id={"type": "string"})
TICKET = tool("ticket", "Show a support ticket", key=text("Ticket key like SUP-123"))
INVOICE = tool("invoice_total", "Total of an invoice", number={"type": "integer", "description": "Invoice number"})
STOCK = tool("stock_price", "Latest price of a stock", symbol=text("Ticker symbol, e.g. AAPL"))
TRANSLATE = tool(
    "translate",
    "Translate a text into another language",
    text=text("The text to translate"),
    language=text(enum=["French", "German"]),
)
CALCULATOR = tool("calculator", "Evaluate an arithmetic expression", expression=text("e.g. 2 + 3 * 4"))
FLIGHTS = tool(
    "find_flights", "Find flights between two cities", origin=text("Departure city"), destination=text("Arrival city")
)
ACCOUNT = tool("user_by_email", "Find the account of a user", email=text(format="email"))
SEVERAL = tool(
    "orders", "Look up several orders", ids={"type": "array", "items": {"type": "string", "pattern": r"^OD-\d+$"}}
)
EMPLOYEE = tool("employee_info", "员工信息查询", employee_id=text("员工工号，例如 E10086"))
LEAVE = tool("leave_balance", "Remaining leave days of an employee", name=text("Employee name"))
OPTIONAL = tool("shipments", "Shipments of an order", [], order={"anyOf": [text("e.g. OD-20240501"), {"type": "null"}]})


@pytest.mark.parametrize(
    ("bound", "question", "arguments"),
    [
        (FLIGHT, "Is CA1831 on time?", {"flight_no": "CA1831"}),
        (FLIGHT, "MU5137 flight status", {"flight_no": "MU5137"}),
        (FLIGHT, "航班MU5137准点吗", {"flight_no": "MU5137"}),
        (IN_WORDS, "OD-20240501怎么样了", {"oid": FIRST}),
        (UNDESCRIBED, "Where is my order OD-20240502?", {"order_id": SECOND}),
        (UNDESCRIBED, "订单OD-20240502到哪了？", {"order_id": SECOND}),
        (UNDESCRIBED, "status of order 12345", {"order_id": "12345"}),
        (UNDESCRIBED, "那OD-20240501呢？", {"order_id": FIRST}),
        (TICKET, "anything new on SUP-42?", {"key": "SUP-42"}),
        (INVOICE, "total of invoice 881", {"number": 881}),
        (INVOICE, "发票881的总额", {"number": 881}),
        (STOCK, "What's the price of AAPL stock?", {"symbol": "AAPL"}),
        (STOCK, "TSLA股价多少", {"symbol": "TSLA"}),
        (TRANSLATE, 'Translate "good morning" into French', {"text": "good morning", "language": "French"}),
        (TRANSLATE, "把“你好”翻译成German", {"text": "你好", "language": "German"}),
        (CALCULATOR, "what is 12*(3+4)?", {"expression": "12*(3+4)"}),
        (CALCULATOR, "12*7等于多少", {"expression": "12*7"}),
        (FLIGHTS, "find flights from Paris to Berlin", {"origin": "Paris", "destination": "Berlin"}),
        (FLIGHTS, "flights to Rome from Oslo", {"origin": "Oslo", "destination": "Rome"}),
        (FLIGHTS, "从北京到上海的航班", {"origin": "北京", "destination": "上海"}),
        (ACCOUNT, "account of bob@example.com", {"email": "bob@example.com"}),
        (SEVERAL, "check OD-1, OD-2 and OD-3", {"ids": ["OD-1", "OD-2", "OD-3"]}),
        (EMPLOYEE, "查一下员工E10010", {"employee_id": "E10010"}),
        (LEAVE, "How many leave days does Alice have?", {"name": "Alice"}),
        (OPTIONAL, "OD-20240501?", {"order": FIRST}),
    ],
)
def test_a_tool_that_the_model_never_saw_is_called_too(
    bound: dict[str, Any], question: str, arguments: dict[str, Any]
) -> None:
    assert calls(question, tools=[bound, SEARCH]) == [(bound["function"]["name"], arguments)]


def test_of_two_tools_for_the_same_number_the_words_decide_and_else_the_harmless_one() -> None:
    cancel = tool("cancel_order", "Cancel an order for good.", order_id=text(pattern=r"^OD-\d{8}$"))
    for bound in ([cancel, ORDER, SEARCH], [ORDER, cancel, SEARCH]):
        assert [name for name, _ in calls("please cancel OD-20240501", tools=bound)] == ["cancel_order"]
        assert [name for name, _ in calls("取消订单OD-20240501", tools=bound)] == ["cancel_order"]
        assert [name for name, _ in calls("OD-20240501?", tools=bound)] == ["order_query"]


def test_a_function_of_langchain_is_bound_as_well_as_a_schema() -> None:
    @langchain_tool
    def room_free(room: Literal["red", "blue"], hours: int = 1) -> str:
        """Tell whether a meeting room is free"""
        return f"{room} {hours}"

    bound: Any = [room_free, SEARCH]
    assert calls("is the blue room free?", tools=bound) == [("room_free", {"room": "blue"})]
    assert calls("is the red room free for 3 hours?", tools=bound) == [("room_free", {"room": "red", "hours": 3})]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("hello", "Hello"),
        ("Hi there!", "Hello"),
        ("Good morning", "Hello"),
        ("good day to you sir", "Hello"),
        ("您好，请问有人吗", "您好"),
        ("你好", "您好"),
        ("早上好！", "您好"),
        ("thanks a lot", "welcome"),
        ("谢谢你", "不客气"),
        ("thanks, bye", "Goodbye"),
        ("再见", "再见"),
        ("ok", "All right"),
        ("好的", "好的"),
        ("who are you?", "offline model"),
        ("What can you do?", "offline model"),
        ("Are you a language model?", "offline model"),
        ("你是谁？", "离线模型"),
        ("你好，你能做什么？", "离线模型"),
        ("???", "could not make out"),
        ("I like turtles", "All right"),
        ("My name is Alice.", "Noted"),
        ("我的名字是小明", "已记下"),
    ],
)
@pytest.mark.parametrize("after", [[], FIRST_ORDER])
def test_small_talk_calls_nothing(question: str, said: str, after: list[BaseMessage]) -> None:
    assert calls(question, after=after) == []
    assert said in reply(question, after=after).text


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("我刚才问的第一个订单是哪个？", "您刚才问的第一个订单是 OD-20240502。"),
        ("我问的第一个订单号是什么", "OD-20240502"),
        ("刚才最后问的是哪个订单？", "OD-20240501"),
        ("我一共问了哪些订单？", "OD-20240502、OD-20240501"),
        ("which order did I ask about first?", "The first order you asked about is OD-20240502."),
        ("What was the first order I asked about?", "OD-20240502"),
        ("Which order did I ask about?", "OD-20240501"),
        ("Which orders have I asked about?", "OD-20240502, OD-20240501"),
        ("What was my last question?", "Where is OD-20240501?"),
        ("What did I ask first?", "订单OD-20240502到哪了？"),
        ("我上一个问题是什么？", "Where is OD-20240501?"),
        ("我刚才问了什么？", "Where is OD-20240501?"),
        ("我先问的是哪个订单", "OD-20240502"),
        ("刚刚第一个查的订单是什么", "OD-20240502"),
        ("Tell me the first order I asked about", "OD-20240502"),
        ("remind me of the first order", "OD-20240502"),
        ("我第一次问的是什么?", "订单OD-20240502到哪了？"),
        ("What have we talked about?", "“订单OD-20240502到哪了？”, “Where is OD-20240501?”"),
        ("总结一下我们的对话", "“订单OD-20240502到哪了？”、“Where is OD-20240501?”"),
        ("summarize our conversation", "“订单OD-20240502到哪了？”, “Where is OD-20240501?”"),
    ],
)
def test_a_question_about_the_conversation_is_answered_from_the_window(question: str, said: str) -> None:
    assert calls(question, after=SECOND_ORDER + FIRST_ORDER) == []
    assert said in reply(question, after=SECOND_ORDER + FIRST_ORDER).text


def test_what_the_window_does_not_hold_is_not_made_up() -> None:
    assert "no" in reply("Which order did I ask about first?").text
    assert "没有" in reply("我刚才问的第一个订单是哪个？").text
    assert "not told me" in reply("What is my name?").text


def test_what_the_user_told_is_known_as_long_as_the_window_holds_it() -> None:
    told = past("My name is Alice and I live in Oslo.") + past("我的工号是E10086")
    assert "Alice" in reply("What is my name?", after=told).text
    assert "E10086" in reply("我的工号是多少？", after=told).text


@pytest.mark.parametrize("question", ["Where is my order?", "Has my order shipped?", "我的订单到哪了？"])
def test_a_number_that_is_missing_is_asked_for_with_an_example(question: str) -> None:
    assert calls(question) == []
    assert FIRST in reply(question).text


def test_of_the_users_own_order_the_number_is_asked_for_though_a_parcel_is_known() -> None:
    parcel = past("PX-123456在哪", "track_parcel", {"tracking_no": "PX-123456"}, "杭州")
    assert calls("is my order shipped?", after=parcel) == []
    assert FIRST in reply("is my order shipped?", after=parcel).text


def test_a_follow_up_keeps_the_direction_that_it_names() -> None:
    money = tool(
        "exchange",
        "Convert money between currencies",
        source_currency=text("e.g. USD"),
        target_currency=text("e.g. EUR"),
    )
    asked = past("USD to EUR", "exchange", {"source_currency": "USD", "target_currency": "EUR"}, "0.9")
    assert calls("and to JPY?", after=asked, tools=[money, SEARCH]) == [
        ("exchange", {"source_currency": "USD", "target_currency": "JPY"})
    ]


def test_without_a_tool_for_it_the_model_says_so() -> None:
    assert "cannot answer" in reply("How do I configure apt?", tools=[ORDER]).text
    assert "cannot answer" in reply("How do I configure apt?", tools=[]).text
    assert "无法回答" in reply("你会写诗吗", tools=[ORDER]).text


def test_no_tool_is_named_in_the_models_code() -> None:
    package = Path(__file__).parents[2] / "serve_app" / "llm" / "offline"
    code = "\n".join(path.read_text("utf-8") for path in package.glob("*.py"))
    assert code
    for bound in ALL:
        assert bound["function"]["name"] not in code
