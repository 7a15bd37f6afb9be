"""The offline model streams, counts tokens, and survives any input."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from offline_tools import ALL, FIRST_ORDER, SEARCH, SECOND_ORDER, reply, text, tool

from serve_app.llm.guarded import GuardedModel
from serve_app.llm.offline import OfflineModel

GIVE_UP_S = 5.0
"""Of CPU time: far above what a text costs that is read once, far below what doubles with each character."""
QUESTION = [SystemMessage("x"), HumanMessage("Where is OD-20240502?")]
CALL = {"id": "call_0", "name": "order_query", "args": {"order_id": "OD-20240502"}}
ANSWERED = [*QUESTION, AIMessage("", tool_calls=[CALL]), ToolMessage("OD-20240502: shipped", tool_call_id="call_0")]


def _models() -> list[Any]:
    return [OfflineModel(), GuardedModel(inner=OfflineModel(), timeout_s=5)]


@pytest.mark.parametrize("model", _models(), ids=["bare", "guarded"])
@pytest.mark.parametrize("messages", [QUESTION, ANSWERED, [HumanMessage("who are you?")]])
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
    chunks = [chunk async for chunk in OfflineModel().bind_tools(ALL).astream(QUESTION)]
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
    assert not OfflineModel().bind_tools(ALL, tool_choice="none").invoke(QUESTION).tool_calls
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
    answered = OfflineModel().invoke([*QUESTION, AIMessage("", tool_calls=twins), *results]).text
    assert answered.splitlines() == ["The look-up for OD-7 says: paid", "The look-up for OD-8 says: shipped"]


def test_a_conversation_that_begins_oddly_is_no_failure() -> None:
    assert OfflineModel().invoke([SystemMessage("x")]).text
    assert OfflineModel().invoke([AIMessage("hm"), HumanMessage("hello")]).text.startswith("Hello")
    assert OfflineModel().invoke([ToolMessage("x", tool_call_id="y"), HumanMessage("hello")]).text.startswith("Hello")


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


def test_the_longest_input_is_read_in_time_that_grows_with_its_length_only() -> None:
    units = ["a", "(", "1", "订", "OD-1 ", "a-", '"', "for a ", " ", ".", "\n", "和", "|", "`", "1,111,", "1-", "a1"]
    for unit in units:
        for after in ([], SECOND_ORDER):
            begun = time.process_time()
            reply((unit * 32_000)[:32_000], after=after, tools=[*ALL, HOSTILE])
            assert time.process_time() - begun < GIVE_UP_S, unit


def test_a_long_passage_is_quoted_in_time_that_grows_with_its_length_only() -> None:
    for unit in ["a", "(", "1", "|", "`", "# ", "。", "a. B", "| |\n", "    x\n"]:
        content = f'[{{"n": 1, "source": "s", "title": "t", "passage": {unit * 20_000!r}}}]'.replace("'", '"')
        messages = [*QUESTION, AIMessage("", tool_calls=[CALL]), ToolMessage(content, tool_call_id="call_0")]
        begun = time.process_time()
        OfflineModel().bind_tools([SEARCH]).invoke(messages)
        assert time.process_time() - begun < GIVE_UP_S, unit


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
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(KEYS), SCHEMAS, max_size=5), SCHEMAS)
@settings(max_examples=100, deadline=None)
def test_any_schema_is_taken(properties: dict[str, Any], definitions: Any) -> None:
    parameters = {"properties": properties, "required": list(properties), "$defs": definitions}
    bound = {"type": "function", "function": {"name": "x", "description": "order", "parameters": parameters}}
    OfflineModel().invoke("where is my order OD-1, number 5?", tools=[bound])
