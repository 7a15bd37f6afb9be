"""Repaired exchanges are readable for every model, whatever was in them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve_app.memory import NO_ANSWER, NO_RESULT, repair_messages
from serve_app.values import Message, ToolRequest

ids = st.sampled_from(["a", "b", "c"])
calls = st.lists(st.builds(ToolRequest, id=ids, name=st.just("t"), arguments=st.just({})), max_size=3)
anything = st.builds(
    Message,
    role=st.sampled_from(["user", "assistant", "tool"]),
    content=st.text(max_size=3),
    tool_calls=calls,
    tool_call_id=st.none() | ids,
)


@st.composite
def valid_steps(draw: st.DrawFn) -> list[Message]:
    """A reply with calls and their results in any order, or one without; or the user speaks again."""
    call_ids = draw(st.lists(ids, max_size=3, unique=True))
    if not call_ids and draw(st.booleans()):
        return [Message(role="user", content=draw(st.text(max_size=3)))]
    requests = [ToolRequest(id=each, name="t", arguments={}) for each in call_ids]
    results = [Message(role="tool", content="r", tool_call_id=each) for each in draw(st.permutations(call_ids))]
    return [Message(role="assistant", content=draw(st.text(max_size=3)), tool_calls=requests), *results]


@st.composite
def valid_exchanges(draw: st.DrawFn) -> list[Message]:
    steps = draw(st.lists(valid_steps(), max_size=4))
    return [
        Message(role="user", content="q"),
        *(message for step in steps for message in step),
        Message(role="assistant", content="a"),
    ]


def _is_valid(messages: list[Message]) -> bool:
    """What providers ask for: calls and results in one block, a user at the start, an answer at the end."""
    wanted: list[str | None] = []
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id not in wanted:
                return False
            wanted.remove(message.tool_call_id)
        elif wanted:
            return False
        elif message.role == "assistant":
            wanted = [call.id for call in message.tool_calls]
    ends_well = bool(messages) and messages[-1].role == "assistant" and not wanted
    return ends_well and messages[0].role == "user"


@given(st.lists(anything, max_size=10))
def test_whatever_comes_in_what_comes_out_is_valid_or_nothing(messages: list[Message]) -> None:
    mended, _ = repair_messages(messages)
    assert _is_valid(mended) or (mended == [] and all(each.role != "user" for each in messages))


@given(st.lists(anything, max_size=10))
def test_what_is_repaired_needs_no_repair(messages: list[Message]) -> None:
    mended, _ = repair_messages(messages)
    assert repair_messages(mended) == (mended, 0)


@given(valid_exchanges())
def test_a_valid_exchange_is_left_alone(messages: list[Message]) -> None:
    assert _is_valid(messages)
    assert repair_messages(messages) == (messages, 0)


@given(valid_exchanges(), st.data())
def test_an_exchange_that_lost_messages_is_counted_and_keeps_the_others_in_order(
    messages: list[Message], data: st.DataObject
) -> None:
    lost = data.draw(st.sets(st.integers(0, len(messages) - 1)))
    left = [each for index, each in enumerate(messages) if index not in lost]
    mended, count = repair_messages(left)
    assert (count == 0) == (_is_valid(left) or not left)
    original = [each for each in mended if each.content not in {NO_RESULT, NO_ANSWER}]
    rest = iter(left)
    assert all(any(each is one for one in rest) for each in original)
    assert count == len(left) - len(original) + len(mended) - len(original)


@given(valid_exchanges(), st.integers(1, 20))
def test_an_exchange_that_was_cut_keeps_all_that_there_is_of_it(messages: list[Message], length: int) -> None:
    mended, count = repair_messages(messages[:length])
    assert mended[: len(messages[:length])] == messages[:length]
    assert count == len(mended) - len(messages[:length])


@given(st.lists(anything.filter(lambda each: each.role != "user"), max_size=5))
def test_an_exchange_in_which_no_user_speaks_is_left_out(messages: list[Message]) -> None:
    assert repair_messages(messages) == ([], len(messages))


def test_what_is_added_says_that_it_is_not_known() -> None:
    call_ids = Message(role="assistant", content="", tool_calls=[ToolRequest(id="c", name="pay", arguments={})])
    mended, _ = repair_messages([Message(role="user", content="pay"), call_ids])
    assert [(each.role, each.content, each.tool_call_id) for each in mended[2:]] == [
        ("tool", NO_RESULT, "c"),
        ("assistant", NO_ANSWER, None),
    ]
