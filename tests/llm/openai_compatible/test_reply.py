"""Bytes become the reply that the provider sent, or an error: never a call that it did not make."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_provider import USAGE, call, chunk, events, streamed, whole

from serve_app.llm.openai_compatible.provider_error import ProviderError, ReplyIncomplete, ReplyUnreadable
from serve_app.llm.openai_compatible.reply_decoder import MAX_WHOLE_BYTES, ProviderReply, ReplyDecoder, ReplyDelta


def decode(*pieces: bytes, accepts_done: bool = False) -> ProviderReply:
    decoder = ReplyDecoder(accepts_done_as_end=accepts_done)
    shown = [delta for piece in pieces for delta in decoder.feed(piece)]
    rest, reply = decoder.close()
    assert "".join(each.text for each in [*shown, rest]) == reply.text
    assert "".join(each.reasoning for each in [*shown, rest]) == reply.reasoning
    return reply


def piece(arguments: Any = None, name: str | None = None, label: str | None = None, **more: Any) -> dict[str, Any]:
    """One piece of a tool call; `index` is in `more` where it has one."""
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return {"function": function, **more} if label is None else {"id": label, "function": function, **more}


def calls_of(*pieces: dict[str, Any] | list[dict[str, Any]]) -> list[tuple[str, Any]]:
    lists = [each if isinstance(each, list) else [each] for each in pieces]
    reply = decode(events(*(chunk({"tool_calls": each}) for each in lists), chunk({}, "tool_calls")))
    return [(each.name, json.loads(each.arguments) if each.valid else "invalid") for each in reply.calls]


WIPES = [("wipe", {"limit": 1}), ("wipe", {"limit": 2})]
PUT_TOGETHER: list[tuple[str, list[Any], list[tuple[str, Any]]]] = [
    ("no index", [piece("", "wipe", "a"), piece('{"limit": '), piece("1}")], WIPES[:1]),
    ("index null", [piece("", "wipe", "a", index=None), piece('{"limit": 1}', index=None)], WIPES[:1]),
    ("index only at first", [piece("", "wipe", "a", index=0), piece('{"limit": 1}')], WIPES[:1]),
    ("index only later", [piece("", "wipe", "a"), piece('{"limit": 1}', index=0)], WIPES[:1]),
    ("index is text", [piece("", "wipe", "a", index="0"), piece('{"limit": 1}', index="0")], WIPES[:1]),
    ("all 0, whole", [piece('{"limit": 1}', "wipe", "a", index=0), piece('{"limit": 2}', "wipe", "b", index=0)], WIPES),
    ("all 0, no ids", [piece('{"limit": 1}', "wipe", index=0), piece('{"limit": 2}', "wipe", index=0)], WIPES),
    (
        "all 0, one id",
        [piece('{"limit": 1}', "wipe", "a", index=0), piece('{"limit": 2}', "wipe", "a", index=0)],
        WIPES,
    ),
    (
        "all 0, in pieces",
        [
            *(piece("", "wipe", "a", index=0), piece('{"limit": ', index=0), piece("1}", index=0)),
            *(piece("", "wipe", "b", index=0), piece('{"limit": ', index=0), piece("2}", index=0)),
        ],
        WIPES,
    ),
    (
        "all 0, in pieces, no ids",
        [
            *(piece("", "wipe", index=0), piece('{"limit": 1}', index=0)),
            *(piece("", "wipe", index=0), piece('{"limit": 2}', index=0)),
        ],
        WIPES,
    ),
    (
        "all 0, interleaved by ids",
        [
            *(piece("", "wipe", "a", index=0), piece("", "wipe", "b", index=0)),
            *(piece('{"limit": 1}', None, "a", index=0), piece('{"limit": 2}', None, "b", index=0)),
        ],
        WIPES,
    ),
    (
        "interleaved by index",
        [
            *(piece("", "wipe", "a", index=0), piece("", "wipe", "b", index=1)),
            *(piece('{"limit": ', index=1), piece('{"limit": 1}', index=0), piece("2}", index=1)),
        ],
        WIPES,
    ),
    ("name in each", [piece('{"limit": ', "wipe", "a", index=0), piece("1}", "wipe", "a", index=0)], WIPES[:1]),
    ("new id in each", [piece('{"limit": ', "wipe", "a", index=0), piece("1}", None, "b", index=0)], WIPES[:1]),
    ("both in each", [piece('{"limit": ', "wipe", "a", index=0), piece("1}", "wipe", "b", index=0)], WIPES[:1]),
    ("empty later", [piece('{"limit": ', "wipe", "a", index=0), piece("1}", "", "", index=0)], WIPES[:1]),
    ("one list", [[piece('{"limit": 1}', "wipe", "a"), piece('{"limit": 2}', "wipe", "b")]], WIPES),
    ("no arguments, twice", [piece("", "ping", "a", index=0), piece("", "ping", "b", index=1)], [("ping", {})] * 2),
    ("no arguments, all 0", [piece("{}", "ping", "a", index=0), piece("{}", "ping", "b", index=0)], [("ping", {})] * 2),
]


def test_the_pieces_of_calls_are_put_together_however_they_are_numbered() -> None:
    for name, pieces, expected in PUT_TOGETHER:
        assert calls_of(*pieces) == expected, name


def test_pieces_that_fit_in_two_ways_make_the_reply_unreadable() -> None:
    doubtful: dict[str, list[Any]] = {
        "two heads, then arguments": [piece("", "wipe", "a", index=0), piece("", "wipe", "b", index=0), piece("{}")],
        "no head": [piece('{"limit": 1}')],
        "another index": [piece("", "wipe", "a", index=0), piece('{"limit": 1}', index=1)],
        "two names": [piece("", "wipe", "a", index=0), piece("{}", "pay", index=0)],
        "no object": [["wipe"]],
        "one inside of another": [piece('{"x": ', "wipe", "a", index=0), piece('{"y": 1}', "wipe", "b", index=0)],
        "interleaved": [
            *(piece("", "wipe", "a", index=0), piece('{"limit"', index=0)),
            *(piece("", "pay", "b", index=0), piece(": 1}", index=0)),
        ],
    }
    for name, pieces in doubtful.items():
        with pytest.raises(ReplyUnreadable):
            pytest.fail(f"{name}: {calls_of(*pieces)}")


ARGUMENTS: list[tuple[Any, Any]] = [
    ({"a": 1}, {"a": 1}),
    ('{"a": 1}', {"a": 1}),
    ('{"a": 1}\n\n ', {"a": 1}),
    (json.dumps('{"a": 1}'), {"a": 1}),
    ('```json\n{"a": 1}\n```', {"a": 1}),
    ("", {}),
    (None, {}),
    ("null", {}),
    ('{"a": "x\\ud83d"}', {"a": "x\ufffd"}),
    ('{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
    ('{"a": "x\\u0000"}', {"a": "x\ufffd"}),
    ('{"a": "\\\\u0000"}', {"a": "\\u0000"}),
    ('{"a": "two\nlines"}', {"a": "two\nlines"}),
    ("[1]", "invalid"),
    ([1], "invalid"),
    (7, "invalid"),
    ('"text"', "invalid"),
    ('{"a": 1', "invalid"),
    ('{"a": 1} and so on', "invalid"),
    ('{"a": 1}{"a": 2}', "invalid"),
    ("{'a': 1}", "invalid"),
    ('{"a": 1, "a": 2}', "invalid"),
    ('{"a": NaN}', "invalid"),
    ('{"a": 1e999}', "invalid"),
    ('{"a": ' + "9" * 5000 + "}", "invalid"),
    ('{"a": ' + "[" * 100_000, "invalid"),
    ('{"a": ' + "[" * 100 + "]" * 100 + "}", "invalid"),
]


def test_arguments_are_one_object_or_no_arguments() -> None:
    for raw, expected in ARGUMENTS:
        for answer in (whole, streamed):
            if answer is streamed and not isinstance(raw, str):
                continue
            [made] = decode(answer({"content": None, "tool_calls": [call("give", raw)]}, "tool_calls")).calls
            assert (json.loads(made.arguments) if made.valid else "invalid") == expected, str(raw)[:60]


def test_equal_keys_in_arguments_that_come_as_an_object_are_refused() -> None:
    body = whole({"tool_calls": [call("pay", {"amount": 1, "z": 2})]}, "tool_calls").replace(b'"z"', b'"amount"')
    with pytest.raises(ReplyUnreadable):
        decode(body)


def test_no_call_of_a_reply_that_was_cut_off_is_given() -> None:
    for finish in ("length", "content_filter", "sensitive", "max_tokens", "of a kind unknown"):
        for arguments in ("", '{"limit": 1}'):
            for answer in (whole, streamed):
                reply = decode(answer({"content": "text", "tool_calls": [call("wipe", arguments)]}, finish))
                assert (reply.text, reply.calls, reply.cut_calls, reply.finish_reason) == ("text", (), 1, finish)


def test_the_end_of_the_bytes_is_not_the_end_of_the_reply() -> None:
    started = [chunk({"content": "Do not take more than "}), chunk({"tool_calls": [piece("", "wipe", "a", index=0)]})]
    for body in (events(*started, done=False), events(*started), whole({"content": "x"}, None)):
        with pytest.raises(ReplyIncomplete):
            decode(body)
    cut = streamed({"content": "some text that is long"})
    for at in range(cut.index(b'"stop"')):
        with pytest.raises((ReplyIncomplete, ReplyUnreadable)):
            decode(cut[:at])


def test_done_ends_a_reply_where_the_profile_says_so_but_absent_arguments_stay_absent() -> None:
    assert decode(events(chunk({"content": "x"})), accepts_done=True).text == "x"
    assert decode(whole({"content": "x"}, None), accepts_done=True).text == "x"
    with pytest.raises(ReplyIncomplete):
        decode(events(chunk({"content": "x"}), done=False), accepts_done=True)
    reply = decode(events(chunk({"tool_calls": [piece("", "wipe", "a", index=0)]})), accepts_done=True)
    assert not reply.calls[0].valid


def test_an_error_inside_of_an_answer_is_raised_with_its_code() -> None:
    error = {"message": "engine died", "code": 500}
    bodies = {
        "whole": json.dumps({"error": error}).encode(),
        "in a list": json.dumps([{"error": error}]).encode(),
        "first": events({"error": error}),
        "in the middle": events(chunk({"content": "x"}), {"error": error}),
        "as an event": b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n",
        "bare": json.dumps(error).encode(),
        "in the choice": events({"choices": [{"index": 0, "delta": {}, "error": error}]}),
    }
    for name, body in bodies.items():
        with pytest.raises(ProviderError) as caught:
            decode(body)
        assert (caught.value.status, caught.value.code, caught.value.text) == (500, "500", "engine died"), name
    for body in (
        events(chunk({"content": "x"}, "network_error")),
        whole({"content": "x"}, "error"),
        json.dumps({"base_resp": {"status_code": 1002, "status_msg": "slow down"}}).encode(),
        b"event: error\ndata: out of order\n\n",
    ):
        with pytest.raises(ProviderError) as caught:
            decode(body)
        assert not isinstance(caught.value, (ReplyIncomplete, ReplyUnreadable))


def test_what_is_no_reply_is_unreadable() -> None:
    bodies = [b"", b" ", b"<html>gateway</html>", b'{"id": "x", "choi', b"[]", b"{}", b": comment\n\n", b"plain"]
    bodies += [b"[" * 100_000, b"data: {broken\n\n" + events(chunk({}, "stop")), b"data: 7\n\n"]
    bodies += [whole({"content": 7}), whole({"content": "x"}).replace(b'"choices": [', b'"choices": 7, "x": [')]
    bodies += [b'{"x": ' + b" " * MAX_WHOLE_BYTES + b"}"]
    for body in bodies:
        with pytest.raises(ReplyUnreadable):
            pytest.fail(str(decode(body))[:200] + str(body)[:80])


FRAMINGS = {
    "as it is": lambda body: body,
    "CRLF": lambda body: body.replace(b"\n", b"\r\n"),
    "CR": lambda body: body.replace(b"\n", b"\r"),
    "BOM": lambda body: b"\xef\xbb\xbf" + body,
    "no space": lambda body: body.replace(b"data: ", b"data:"),
    "fields": lambda body: body.replace(b"data: ", b": ping\nid: 7\nretry: 9\nevent: message\ndata: "),
    "keep-alive": lambda body: b': x\n\ndata:\n\nevent: ping\ndata: x\n\ndata: {"choices": null}\n\n' + body,
    "no empty lines": lambda body: body.replace(b"\n\n", b"\n"),
    "no end": lambda body: body.rstrip(b"\n"),
    "several lines": lambda body: body.replace(b'"choices"', b'\ndata: "choices"'),
}
MESSAGE = {"content": "北京 is 😀 here", "tool_calls": [call("wipe", '{"limit": 1, "why": "é"}')]}


@settings(deadline=None, max_examples=60)
@given(framing=st.sampled_from(sorted(FRAMINGS)), cuts=st.lists(st.integers(0, 3000), max_size=30))
def test_the_bytes_may_be_split_anywhere(framing: str, cuts: list[int]) -> None:
    body = FRAMINGS[framing](streamed(MESSAGE, "tool_calls"))
    ends = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    parts = [body[start:end] for start, end in itertools.pairwise(ends)]
    assert decode(*parts) == decode(whole(MESSAGE, "tool_calls"))


def test_each_byte_may_come_alone() -> None:
    raw = json.dumps(chunk({"content": "北京 😀"}, "stop"), ensure_ascii=False).encode()
    for framing, change in FRAMINGS.items():
        if framing != "several lines":
            body = change(b"data: " + raw + b"\n\n")
            assert decode(*(body[at : at + 1] for at in range(len(body)))).text == "北京 😀", framing


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
OBJECTS = st.dictionaries(
    TEXT, st.none() | st.booleans() | st.integers() | TEXT | st.lists(TEXT, max_size=3), max_size=3
)
FINISHES = st.sampled_from(["stop", "tool_calls", "length", "content_filter"])


@settings(deadline=None, max_examples=60)
@given(
    text=TEXT,
    arguments=st.lists(OBJECTS.map(json.dumps) | TEXT | st.just(""), max_size=3),
    finish=FINISHES,
    width=st.integers(1, 9),
)
def test_streamed_or_whole_a_reply_means_the_same(text: str, arguments: list[str], finish: str, width: int) -> None:
    calls = [call("give", each, f"call_{place}") for place, each in enumerate(arguments)]
    message = {"content": text, "tool_calls": calls}
    assert decode(streamed(message, finish, width)) == decode(whole(message, finish))


PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)


@settings(deadline=None, max_examples=60)
@given(
    sent=st.lists(st.dictionaries(PLAIN, PLAIN | st.integers() | st.lists(PLAIN), max_size=3), min_size=1, max_size=3),
    indexes=st.sampled_from(["given", "all 0", "absent"]),
    ids=st.booleans(),
    width=st.integers(1, 9),
    cut=st.floats(0, 1),
)
def test_no_call_is_given_that_the_model_did_not_send(
    *, sent: list[dict[str, Any]], indexes: str, ids: bool, width: int, cut: float
) -> None:
    pieces = []
    for place, each in enumerate(sent):
        at = {"given": {"index": place}, "all 0": {"index": 0}, "absent": {}}[indexes]
        written = json.dumps(each)
        pieces.append(piece("", "give", f"call_{place}" if ids else None, **at))
        pieces += [piece(written[start : start + width], **at) for start in range(0, len(written), width)]
    body = events(*(chunk({"tool_calls": [each]}) for each in pieces), chunk({}, "tool_calls"))
    assert [json.loads(each.arguments) for each in decode(body).calls if each.valid] == sent
    dropped = pieces[: int(len(pieces) * cut)]
    try:
        reply = decode(events(*(chunk({"tool_calls": [each]}) for each in dropped), done=False))
    except (ReplyIncomplete, ReplyUnreadable):
        return
    pytest.fail(f"a cut reply was taken: {reply}")


def test_what_one_read_brings_is_one_piece_in_order_and_before_its_error() -> None:
    texts = [chunk({"content": word}) for word in ("a", "b", "c")]
    assert [*ReplyDecoder().feed(events(*texts))] == [ReplyDelta("abc", "")]
    thought = chunk({"reasoning_content": "hm"})
    between = ReplyDecoder().feed(events(texts[0], thought, thought, texts[1], texts[2]))
    assert [*between] == [ReplyDelta("a", ""), ReplyDelta("bc", "hmhm")]
    broken = ReplyDecoder().feed(events(*texts, {"error": {"message": "engine died"}}))
    assert next(broken) == ReplyDelta("abc", "")
    with pytest.raises(ProviderError, match="engine died"):
        next(broken)


def test_half_an_emoji_waits_for_the_other_half() -> None:
    halves = events(chunk({"content": "a\ud83d"}), chunk({"content": "\ude00b"}), chunk({"content": "\ud83d"}, "stop"))
    assert decode(halves).text == "a😀b\ufffd"
    assert decode(whole({"content": "x\ud83d y\x00"})).text == "x\ufffd y\ufffd"


def test_text_thinking_and_refusal_are_told_apart() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "yes"}]
    for message in ({"content": parts}, {"content": "yes", "reasoning_content": "hm", "reasoning": "hm"}):
        for body in (whole(message), events(chunk(message), chunk({}, "stop"))):
            reply = decode(body)
            assert (reply.text, reply.reasoning) == ("yes", "hm")
    assert decode(whole({"content": None, "refusal": "I cannot."})).refusal == "I cannot."


def test_usage_is_the_last_running_total() -> None:
    running = [chunk({"content": "x"}, usage={"prompt_tokens": 11, "completion_tokens": n}) for n in range(1, 8)]
    reply = decode(events(*running, chunk({}, "stop", usage=None)))
    assert reply.usage == {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
    odd: list[tuple[Any, Any]] = [
        (None, None),
        ({}, None),
        ({"prompt_tokens": None}, None),
        ({"prompt_tokens": 12.0, "completion_tokens": 3.0}, (12, 3)),
        ({"prompt_tokens": 12, "total_tokens": 15}, (12, 3)),
        ("many", None),
        ({"prompt_tokens": -1, "completion_tokens": True}, None),
    ]
    for usage, expected in odd:
        made = decode(whole({"content": "x"}, usage=usage)).usage
        assert (made and (made["input_tokens"], made["output_tokens"])) == expected, usage


def test_only_the_first_choice_counts() -> None:
    choices = [{"index": at, "message": {"content": f"choice {at}"}, "finish_reason": "stop"} for at in (1, 0, 2)]
    assert decode(json.dumps({"choices": choices}).encode()).text == "choice 0"
    both = {"choices": [{"index": at, "delta": {"content": str(at)}, "finish_reason": "stop"} for at in (1, 0)]}
    assert decode(events(both)).text == "0"


def test_the_old_form_of_a_call_is_a_call() -> None:
    message = {"content": None, "function_call": {"name": "wipe", "arguments": '{"limit": 1}'}}
    pieces = [chunk({"function_call": {"name": "wipe", "arguments": ""}})]
    pieces += [chunk({"function_call": {"arguments": each}}) for each in ('{"limit"', ": 1}")]
    for body in (whole(message, "function_call"), events(*pieces, chunk({}, "function_call"))):
        [made] = decode(body).calls
        assert (made.name, made.arguments) == ("wipe", '{"limit": 1}')


def test_a_stream_that_ends_with_the_whole_message_says_it_once() -> None:
    last = {"choices": [{"index": 0, "message": {"content": "one two"}, "finish_reason": "stop"}], "usage": USAGE}
    assert decode(events(chunk({"content": "one "}), chunk({"content": "two"}), last)).text == "one two"
