"""The offline model calls tools, asks, repeats and searches as its docstring says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool as langchain_tool
from offline_tools import ALL, APT, FIRST_ORDER, ORDER, PARIS, SEARCH, SECOND_ORDER, calls, past, reply, text, tool

from serve_app.llm.offline.schema import compile_safe_pattern, read_tools

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

FIRST, SECOND = "OD-20240501", "OD-20240502"
BOTH = FIRST_ORDER + SECOND_ORDER
QUESTIONS = Path(__file__).parents[1] / "knowledge" / "questions.json"


def _orders(*numbers: str) -> list[tuple[str, dict[str, Any]]]:
    return [("order_query", {"order_id": number}) for number in numbers]


def test_each_token_that_fits_a_pattern_is_a_call() -> None:
    cases = [
        ("Where is my order OD-20240502?", [SECOND]),
        ("订单OD-20240502到哪了?", [SECOND]),
        ("order od-20240502 status", [SECOND]),
        ("订单ＯＤ－２０２４０５０２到哪了？", [SECOND]),
        ("OD–20240501?", [FIRST]),
        ("hi, where's OD-20240501", [FIRST]),
        ("OD-1 and OD-2?", ["OD-1", "OD-2"]),
        ("OD-20240501和OD-20240502的状态", [FIRST, SECOND]),
        ("Compare OD-20240501/od-20240502 and OD-20240501", [FIRST, SECOND]),
    ]
    for question, numbers in cases:
        for after in ([], SECOND_ORDER, APT):
            assert calls(question, after=after) == _orders(*numbers), question
    assert calls("px-123456到哪了") == [("track_parcel", {"tracking_no": "PX-123456"})]


def test_a_tool_is_called_by_the_enum_examples_and_numbers_of_its_schema() -> None:
    flight = tool("flight_status", "Tell whether a flight is on time", flight_no=text(examples=["CA1831"]))
    optional = tool("shipments", "Shipments", [], order={"anyOf": [text(pattern=r"^OD-\d+$"), {"type": "null"}]})
    cases: list[tuple[dict[str, Any] | None, str, tuple[str, dict[str, Any]]]] = [
        (None, "convert 100 USD to EUR", ("convert_currency", {"amount": 100, "from": "USD", "to": "EUR"})),
        (None, "Book a meeting room for 8 people", ("room_booking", {"people": 8})),
        (None, "What's the weather in Paris?", ("get_weather", {"city": "Paris"})),
        (None, "What time is it?", ("current_time", {})),
        (flight, "Is CA1501 on time?", ("flight_status", {"flight_no": "CA1501"})),
        (flight, "CA9", ("flight_status", {"flight_no": "CA9"})),
        (optional, "OD-20240501?", ("shipments", {"order": FIRST})),
    ]
    for bound, question, call in cases:
        assert calls(question, tools=[bound, SEARCH] if bound else None) == [call], question


def test_a_function_of_langchain_is_bound_as_well_as_a_schema() -> None:
    @langchain_tool
    def room_free(room: Literal["red", "blue"], hours: int = 1) -> str:
        """Tell whether a meeting room is free"""
        return f"{room} {hours}"

    assert calls("is the blue room free?", tools=[room_free, SEARCH]) == [("room_free", {"room": "blue"})]  # type: ignore[list-item]


def test_of_two_tools_for_the_same_number_the_words_decide_and_else_the_harmless_one_is_called() -> None:
    cancel = tool("cancel_order", "Cancel an order for good.", order_id=text(pattern=r"^OD-\d{8}$"))
    for bound in ([cancel, ORDER, SEARCH], [ORDER, cancel, SEARCH]):
        assert [name for name, _ in calls("please cancel OD-20240501", tools=bound)] == ["cancel_order"]
        assert [name for name, _ in calls("OD-20240501?", tools=bound)] == ["order_query"]


def test_a_follow_up_calls_the_last_tool_again() -> None:
    cases: list[tuple[list[BaseMessage], str, list[str]]] = [
        (FIRST_ORDER, "has it shipped?", [FIRST]),
        (FIRST_ORDER, "and when will it arrive?", [FIRST]),
        (FIRST_ORDER, "status?", [FIRST]),
        (FIRST_ORDER, "Why hasn't it shipped?", [FIRST]),
        (SECOND_ORDER, "请再查一次", [SECOND]),
        (SECOND_ORDER, "发货了吗", [SECOND]),
        (SECOND_ORDER, "那它呢", [SECOND]),
        (SECOND_ORDER, "什么时候到？", [SECOND]),
        (FIRST_ORDER + APT, "has it shipped?", [FIRST]),
        (FIRST_ORDER + past("thanks"), "has it shipped?", [FIRST]),
        (past("Where is OD-20240502?"), "Has it shipped?", [SECOND]),
        (BOTH, "到哪了", [SECOND]),
        (BOTH, "repeat please", [SECOND]),
    ]
    for after, question, numbers in cases:
        assert calls(question, after=after) == _orders(*numbers), question


def test_a_follow_up_about_one_of_several_orders_repeats_none_of_them() -> None:
    for question in ("那第一个呢？", "what about the other one?", "它们都发货了吗？"):
        answered = reply(question, after=BOTH)
        assert all(call["name"] != "order_query" for call in answered.tool_calls), question


def test_a_follow_up_to_a_search_is_made_complete() -> None:
    for question in ("and on Debian?", "How do I remove it?", "why?", "那在Ubuntu上呢？"):
        ((name, arguments),) = calls(question, after=APT)
        assert name == "knowledge_search"
        assert arguments["query"] == f"How do I configure apt? {question.replace('？', '?')}"


def test_a_question_about_anything_else_is_searched_for_whatever_was_asked_before() -> None:
    questions = [
        *("How do I configure apt?", "apt怎么配置？", "apt pinning", "Tell me about systemd", "退货政策是什么"),
        *("How do I descale the kettle?", "水壶怎么除垢？", "保修期是多久？", "Can UTF-8 be the default?"),
        *("What changed in version 2.6.18?", "How do I book a meeting room for 5 people?"),
        *("What is the order of mount operations at boot?", "What time does cron run daily jobs?"),
        *("怎么查看服务的状态", "football world cup", "How is the package delivered to the mirror?"),
        *(row["question"] for row in json.loads(QUESTIONS.read_text("utf-8"))),
    ]
    for question in questions:
        for after in ([], FIRST_ORDER, SECOND_ORDER):
            ((name, arguments),) = calls(question, after=after)
            assert name == "knowledge_search", question
            assert arguments == {"query": question.replace("？", "?")}


def test_what_a_call_lacks_is_asked_for_and_then_used() -> None:
    for question in ("Where is my order?", "Has my order shipped?", "我的订单到哪了？"):
        assert FIRST in reply(question).text, question
    reply_text = reply("What's the weather like?").text
    assert reply_text == "I need one more detail to look this up: city (for example Paris)."
    after: list[BaseMessage] = [HumanMessage("What's the weather like?"), AIMessage(reply_text)]
    assert calls("Munich.", after=after) == [("get_weather", {"city": "Munich"})]
    assert calls("How do I descale the kettle?", after=after)[0][0] == "knowledge_search"
    assert "city" in reply("And in London?", after=PARIS).text
    assert calls("Is it raining there?", after=PARIS) == [("get_weather", {"city": "Paris"})]


def test_which_order_was_asked_about_is_answered_from_the_window() -> None:
    cases = [
        ("我刚才问的第一个订单是哪个？", "您刚才问的第一个订单是 OD-20240502。"),
        ("刚才最后问的是哪个订单？", "您刚才问的最后一个订单是 OD-20240501。"),
        ("我一共问了哪些订单？", "您问过：OD-20240502、OD-20240501。"),
        ("which order did I ask about first?", "The first order you asked about is OD-20240502."),
        ("What was the first order I asked about?", "The first order you asked about is OD-20240502."),
        ("Which order did I ask about?", "The last order you asked about is OD-20240501."),
        ("Which orders have I asked about?", "You asked about: OD-20240502, OD-20240501."),
    ]
    for question, wording in cases:
        assert reply(question, after=SECOND_ORDER + FIRST_ORDER).text == wording
    assert "nothing of the kind" in reply("Which order did I ask about first?").text
    assert "没有" in reply("我刚才问的第一个订单是哪个？").text


def test_small_talk_calls_nothing() -> None:
    cases = [
        ("hello", "Hello"),
        ("Hi there!", "Hello"),
        ("您好，请问有人吗", "您好"),
        ("早上好！", "您好"),
        ("thanks a lot", "welcome"),
        ("谢谢你", "不客气"),
        ("thanks, bye", "Goodbye"),
        ("再见", "再见"),
        ("ok", "All right"),
        ("好的", "好的"),
        ("who are you?", "offline model"),
        ("你好，你能做什么？", "离线模型"),
        ("???", "could not make out"),
    ]
    for question, wording in cases:
        for after in ([], FIRST_ORDER):
            answered = reply(question, after=after)
            assert not answered.tool_calls
            assert wording in answered.text, question
    assert "order_query, " in reply("who are you?").text


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


def _find(pattern: str, wording: str) -> list[Any]:
    (read,) = read_tools([tool("thing_state", "State of a thing", thing=text(pattern=pattern))])
    return read.parameters[0].find_values(wording)


def test_the_patterns_that_schemas_have_are_used() -> None:
    cases = [
        (r"^OD-\d{8}$", "OD-20240501"),
        (r"^[A-Z]{2}\d{2}(?:-\d{4}){2}$", "AB12-3456-7890"),
        (r"^(?:OD|PX)-\d+$", "PX-1"),
        (r"[0-9a-f]{8}-[0-9a-f]{4}", "0f8fad5b-d9cb"),
        (r"^INV_\d{4}_[A-Z]$", "INV_2024_A"),
    ]
    for pattern, token in cases:
        assert _find(pattern, f"what of {token}?") == [token]
        assert _find(pattern, f"请查{token}的状态") == [token]
    for pattern in (r"^.+$", r"\w+", r"^[A-Za-z ]+$", r"^.{1,100}$"):
        assert _find(pattern, "what of OD-1 there?") == [], pattern


def test_a_pattern_that_may_take_long_is_not_tried() -> None:
    slow = [r"(\d+)+x", r"(a|b)*1", r"(a?){9}1", r"(\d{1,9}-)*1", r"((a)1)*", r".*.*.*.*1", "([", "1" * 201]
    assert [pattern for pattern in slow if compile_safe_pattern(pattern)] == []


@given(st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_text_gets_a_reply(wording: str) -> None:
    for after in ([], SECOND_ORDER):
        answered = reply(wording, after=after)
        assert bool(answered.tool_calls) is not bool(answered.text)
