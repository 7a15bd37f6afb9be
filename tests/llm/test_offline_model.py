"""Is the offline model a chat model like any other: streamed, counted, quick, and calm whatever it is sent?"""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from offline_tools import ALL, FIRST_ORDER, SEARCH, SECOND_ORDER, calls, reply, text, tool

from serve_app.llm.guarded import GuardedModel
from serve_app.llm.offline import OfflineModel, described
from serve_app.llm.offline.patterns import safe

ASKED = [SystemMessage("x"), HumanMessage("Where is OD-20240502?")]
CALL = {"id": "call_0", "name": "order_query", "args": {"order_id": "OD-20240502"}}
ANSWERED = [*ASKED, AIMessage("", tool_calls=[CALL]), ToolMessage("OD-20240502: shipped", tool_call_id="call_0")]


def _models() -> list[Any]:
    return [OfflineModel(), GuardedModel(inner=OfflineModel(), timeout_s=5)]


@pytest.mark.parametrize("model", _models(), ids=["bare", "guarded"])
@pytest.mark.parametrize("messages", [ASKED, ANSWERED, [HumanMessage("who are you?")]])
async def test_a_stream_adds_up_to_the_whole_reply(model: Any, messages: list[Any]) -> None:
    bound = model.bind_tools(ALL)
    whole = await bound.ainvoke(messages)
    streamed: AIMessageChunk | None = None
    async for chunk in bound.astream(messages):
        streamed = chunk if streamed is None else streamed + chunk
    assert streamed is not None
    assert streamed.text == whole.text
    made, meant = [[(call["name"], call["args"]) for call in reply.tool_calls] for reply in (streamed, whole)]
    assert made == meant
    assert streamed.usage_metadata == whole.usage_metadata
    assert streamed.response_metadata["model_name"] == whole.response_metadata["model_name"] == "offline"


async def test_an_answer_is_streamed_in_small_pieces() -> None:
    pieces = [chunk.text async for chunk in OfflineModel().astream("who are you?") if chunk.text]
    assert len(pieces) > 5
    assert max(map(len, pieces)) <= 32


async def test_a_tool_call_is_streamed_as_a_call_and_usage_comes_last() -> None:
    chunks = [chunk async for chunk in OfflineModel().bind_tools(ALL).astream(ASKED)]
    assert [call["name"] for chunk in chunks for call in chunk.tool_call_chunks] == ["order_query"]
    assert [bool(chunk.usage_metadata) for chunk in chunks][-1]


def test_usage_is_a_quarter_of_the_bytes() -> None:
    counted = OfflineModel().invoke([HumanMessage("hi" * 40)]).usage_metadata
    assert counted is not None
    assert counted["input_tokens"] == 20
    assert counted["total_tokens"] == counted["input_tokens"] + counted["output_tokens"]


def test_the_same_question_gets_the_same_reply() -> None:
    first, second = (reply("OD-1 and OD-2?", after=FIRST_ORDER) for _ in range(2))
    assert first.tool_calls == second.tool_calls
    assert [call["id"] for call in first.tool_calls] == ["call_0", "call_1"]


def test_no_tool_is_called_where_the_caller_forbids_it_or_results_are_there() -> None:
    assert not OfflineModel().bind_tools(ALL, tool_choice="none").invoke(ASKED).tool_calls
    assert not OfflineModel().bind_tools(ALL).invoke(ANSWERED).tool_calls
    assert OfflineModel().invoke(ANSWERED).text == "The look-up says: OD-20240502: shipped"


def test_results_of_calls_with_the_same_id_in_two_steps_are_told_apart() -> None:
    messages = [
        *ANSWERED,
        AIMessage("", tool_calls=[{**CALL, "args": {"order_id": "OD-7"}}]),
        ToolMessage("paid", tool_call_id="call_0"),
    ]
    assert OfflineModel().invoke(messages).text.splitlines()[-1] == "The look-up for OD-7 says: paid"


def test_calls_of_one_step_that_share_an_id_keep_their_order() -> None:
    twins = [{**CALL, "args": {"order_id": "OD-7"}}, {**CALL, "args": {"order_id": "OD-8"}}]
    results = [ToolMessage(state, tool_call_id="call_0") for state in ("paid", "shipped")]
    said = OfflineModel().invoke([*ASKED, AIMessage("", tool_calls=twins), *results]).text
    assert said.splitlines() == ["The look-up for OD-7 says: paid", "The look-up for OD-8 says: shipped"]


def test_a_conversation_that_begins_oddly_is_no_failure() -> None:
    assert OfflineModel().invoke([SystemMessage("x")]).text
    assert OfflineModel().invoke([AIMessage("hm"), HumanMessage("hello")]).text.startswith("Hello")
    assert OfflineModel().invoke([ToolMessage("x", tool_call_id="y"), HumanMessage("hello")]).text.startswith("Hello")


def test_a_step_takes_about_a_millisecond() -> None:
    window = FIRST_ORDER + SECOND_ORDER + FIRST_ORDER
    questions = [
        "has it shipped?",
        "How do I configure apt for a proxy that needs a password?",
        "那它呢",
        "Who are you?",
    ]
    for question in questions:
        reply(question, after=window)
    begun = time.process_time()
    for _ in range(25):
        for question in questions:
            reply(question, after=window)
    assert (time.process_time() - begun) / 100 < 0.003


HOSTILE = tool(
    "hostile",
    "Look something up",
    [],
    doubling=text(pattern=r"^(\d+)+$"),
    choosing=text(pattern=r"^(1|\d)*$"),
    optional=text(pattern=r"^(1?){30}1{30}$"),
    broken=text(pattern="([a-"),
    greedy=text(pattern=r"^.*.*.*.*=$"),
    huge=text(pattern=r"^(?:\d{999}){999}$"),
    long=text(pattern="a" * 5000),
)


@pytest.mark.parametrize(
    "unit", ["a", "(", "1", "订", "OD-1 ", "a-", '"', "for a ", " ", ".", "\n", "和", "|", "`", "1,111,"]
)
@pytest.mark.parametrize("after", [[], SECOND_ORDER])
def test_the_longest_input_is_read_at_once(unit: str, after: list[Any]) -> None:
    begun = time.process_time()
    reply((unit * 32_000)[:32_000], after=after, tools=[*ALL, HOSTILE])
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize("unit", ["a", "(", "1", "|", "`", "# ", "。", "a. B", "| |\n", "    x\n"])
def test_a_long_passage_is_quoted_at_once(unit: str) -> None:
    content = f'[{{"n": 1, "source": "s", "title": "t", "passage": {unit * 20_000!r}}}]'.replace("'", '"')
    messages = [*ASKED, AIMessage("", tool_calls=[CALL]), ToolMessage(content, tool_call_id="call_0")]
    begun = time.process_time()
    OfflineModel().bind_tools([SEARCH]).invoke(messages)
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize("token", ["1" * 40 + "a", "a" * 39 + "1", "1-" * 20 + "a", "1" * 64])
def test_a_users_pattern_costs_little_whatever_it_is(token: str) -> None:
    begun = time.process_time()
    for parameter in HOSTILE["function"]["parameters"]["properties"].values():
        shape = described.of_pattern(parameter["pattern"], [])
        if shape:
            shape.find(f"is {token} there?")
    assert time.process_time() - begun < 0.1


@pytest.mark.parametrize(
    ("pattern", "token"),
    [
        (r"^OD-\d{8}$", "OD-20240501"),
        (r"^[A-Z]{2}\d{2}(?:-\d{4}){2}$", "AB12-3456-7890"),
        (r"^(?:OD|PX)-\d+$", "PX-1"),
        (r"[0-9a-f]{8}-[0-9a-f]{4}", "0f8fad5b-d9cb"),
        (r"^INV_\d{4}_[A-Z]$", "INV_2024_A"),
    ],
)
def test_the_patterns_that_schemas_have_are_used(pattern: str, token: str) -> None:
    shape = described.of_pattern(pattern, [])
    assert shape is not None
    assert [found.value for found in shape.find(f"what of {token}?")] == [token]
    assert [found.value for found in shape.find(f"请查{token}的状态")] == [token]


@pytest.mark.parametrize(
    "pattern", [r"(\d+)+x", r"(a|b)*1", r"(a?){9}1", r"(\d{1,9}-)*1", r"((a)1)*", r".*.*.*.*1", "([", "1" * 201]
)
def test_a_pattern_that_may_take_long_is_not_tried(pattern: str) -> None:
    assert safe(pattern) is None


@pytest.mark.parametrize("pattern", [r"^.+$", r"\w+", r"^[A-Za-z ]+$", r"^.{1,100}$"])
def test_a_pattern_that_any_word_has_names_no_identifier(pattern: str) -> None:
    assert described.of_pattern(pattern, []) is None


@pytest.mark.parametrize(
    ("description", "tokens", "others"),
    [
        ("Order number, e.g. OD-20240501", ["OD-1", "od-20249999"], ["OD", "2024"]),
        ("格式 OD-加8位数字", ["OD-20240501"], ["OD-", "AB-1"]),
        ("like PX-1234", ["PX-1", "PX-123456"], ["PX", "1234"]),
        ("a number of the form TCK-######", ["TCK-123456"], ["TCK-abc"]),
        ("OD-YYYYMMDD", ["OD-20240501"], ["OD-may"]),
        ("starts with INV- and goes on with digits", ["INV-77"], ["INV-x"]),
        ("A followed by 6 digits", ["A123456"], ["A12", "B123456"]),
        ("例如：7f3a9c", ["0b11ad", "7f3a9c"], ["apt"]),
        ("12-digit account number", ["123456789012"], ["1234"]),
        ("八位数字", ["20240501"], ["2024"]),
    ],
)
def test_a_shape_is_read_from_a_description(description: str, tokens: list[str], others: list[str]) -> None:
    bound = [tool("thing_state", "State of a thing", thing_id=text(description)), SEARCH]
    for token in tokens:
        ((name, arguments),) = calls(f"state of thing {token}?", tools=bound)
        assert name == "thing_state"
        assert arguments["thing_id"].casefold() == token.casefold()
    for token in others:
        assert all(
            arguments.get("thing_id") != token for _, arguments in calls_or_none(f"state of thing {token}?", bound)
        )


def calls_or_none(question: str, bound: list[Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(call["name"], call["args"]) for call in reply(question, tools=bound).tool_calls]


@given(st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_text_gets_a_reply(said: str) -> None:
    for after in ([], SECOND_ORDER):
        answered = reply(said, after=after)
        assert bool(answered.tool_calls) is not bool(answered.text)


KEYS = [
    "type",
    "enum",
    "pattern",
    "examples",
    "description",
    "items",
    "anyOf",
    "minimum",
    "$ref",
    "format",
    "const",
    "p",
]
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["string", "array", "integer", "e.g. OD-1", "#/$defs/p"])
)
SCHEMAS = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner)
)


@given(st.dictionaries(st.sampled_from(KEYS), SCHEMAS), SCHEMAS)
@settings(max_examples=300, deadline=None)
def test_any_schema_is_taken(properties: dict[str, Any], definitions: Any) -> None:
    parameters = {"properties": properties, "required": list(properties), "$defs": definitions}
    bound = {"type": "function", "function": {"name": "x", "description": "order", "parameters": parameters}}
    OfflineModel().invoke("where is my order OD-1, number 5?", tools=[bound])
