"""Replies with tool calls: ids, places, names and arguments as providers send them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from reply_bytes import (
    ABSENT,
    Framing,
    Json,
    ModelReply,
    call,
    calls,
    chunk,
    error,
    events,
    piece,
    pieces,
    raw_call,
    streamed,
    text,
    whole,
)
from reply_kinds import (
    FAILED,
    UNREADABLE,
    ExpectedTurn,
    ReplyKind,
    closing_reply,
    expect_calls,
    expect_not_run,
    make_kind,
)

if TYPE_CHECKING:
    from strict_provider import HttpReply, ModelRequest

LOOKED = expect_calls(("look_up", "ok"), contains=("<owl> stands on page 7",))
BOTH = expect_calls(("look_up", "ok"), ("look_up", "ok"), contains=("<owl>", "<elk>"))
OWL, ELK = '{"word": "owl"}', '{"word": "elk"}'


def _in_pieces(*parts: Json) -> ModelReply:
    """A call to look up the owl, streamed in these pieces."""
    return calls(call("look_up", OWL), deltas=pieces(*parts))


def _booking(turn: str, seats: int, called: Any = "call_1") -> Json:
    return call("book", {"turn": turn, "seats": seats}, called)


def _looked(name: str, *parts: Json) -> ReplyKind:
    return make_kind(name, lambda turn: _in_pieces(*parts), LOOKED)


def _arguments(name: str, arguments: Any, *right: ExpectedTurn) -> ReplyKind:
    return make_kind(name, lambda turn: calls(raw_call("look_up", arguments)), *right)


IDS = [
    make_kind(
        f"two-calls-with-{name}", lambda turn, a=a, b=b: calls(call("look_up", OWL, a), call("look_up", ELK, b)), BOTH
    )
    for name, a, b in (
        ("one-id", "call_7", "call_7"),
        ("empty-ids", "", ""),
        ("null-ids", None, None),
        ("no-ids", ABSENT, ABSENT),
        ("an-id-like-ours", None, "call_0"),
        ("number-ids", 1, 2),
        ("long-ids", "chatcmpl-tool-" + "3f" * 17, "chatcmpl-tool-" + "4f" * 17),
        ("ids-of-other-letters", "functions.look_up:0", "询价/1"),
    )
]


def _again_with_one_id(ask: ModelRequest, turn: str) -> HttpReply:
    """The ids begin anew with each step, as Kimi's do."""
    made = closing_reply(ask) if ask.step > 1 else calls(call("look_up", (OWL, ELK)[ask.step], "look_up:0"))
    return streamed(made) if ask.stream else whole(made)


STEPS = [
    ReplyKind(
        name="the-same-id-in-each-step", whole=_again_with_one_id, streamed=_again_with_one_id,
        right=(expect_calls(("look_up", "ok"), ("look_up", "ok"), contains=("<elk>",)),),
    ),
]  # fmt: skip

HEAD = call("look_up", "", "call_1")
PLACES = [
    _looked("pieces-without-index", HEAD, piece('{"word"'), piece(': "owl"}')),
    _looked("pieces-with-index-null", *({**each, "index": None} for each in (HEAD, piece('{"word"'), piece(': "owl"}')))),
    _looked("index-begins-at-1", {"index": 1, **HEAD}, piece('{"word": ', index=1), piece('"owl"}', index=1)),
    _looked("index-is-text", {"index": "0", **HEAD}, piece('{"word": ', index="0"), piece('"owl"}', index="0")),
    _looked("only-the-first-piece-has-an-index", {"index": 0, **HEAD}, piece('{"word": '), piece('"owl"}')),
    _looked("id-in-each-piece", *({"index": 0, "id": "call_1", **piece(each)} | ({"function": {"name": "look_up", "arguments": each}} if not at else {}) for at, each in enumerate(('{"word', '": "ow', 'l"}')))),
    _looked("name-in-each-piece", *({"index": 0, **call("look_up", each)} for each in ('{"word', '": "ow', 'l"}'))),
    _looked("a-new-id-in-each-piece", *({"index": 0, "id": f"x{at}", "function": {"name": "look_up" if not at else None, "arguments": each}} for at, each in enumerate(('{"word', '": "ow', 'l"}')))),
    _looked("later-ids-and-names-empty", {"index": 0, **HEAD}, *({"index": 0, "id": "", "type": "", "function": {"name": "", "arguments": each}} for each in (OWL[:5], OWL[5:]))),
    _looked("later-names-null", {"index": 0, **HEAD}, *({"index": 0, "id": None, "function": {"name": None, "arguments": each}} for each in (OWL[:5], OWL[5:]))),
    _looked("first-arguments-null", {"index": 0, **raw_call("look_up", None)}, piece(OWL, index=0)),
    _looked("first-arguments-absent", {"index": 0, **raw_call("look_up", ABSENT)}, piece(OWL, index=0)),
    _looked("last-piece-empty", {"index": 0, **call("look_up", OWL)}, piece("", index=0)),
    _looked("white-space-after", {"index": 0, **call("look_up", OWL)}, piece("\n  ", index=0)),
    make_kind("two-calls-whole-at-index-0", lambda turn: calls(call("look_up", OWL), call("look_up", ELK, "call_2"), deltas=pieces({"index": 0, **call("look_up", OWL)}, {"index": 0, **call("look_up", ELK, "call_2")})), BOTH),
    make_kind("two-calls-whole-at-index-0-without-ids", lambda turn: calls(call("look_up", OWL, None), call("look_up", ELK, None), deltas=pieces({"index": 0, **call("look_up", OWL, ABSENT)}, {"index": 0, **call("look_up", ELK, ABSENT)})), BOTH),
    make_kind("two-calls-whole-without-index", lambda turn: calls(call("look_up", OWL), call("look_up", ELK, "call_2"), deltas=pieces(call("look_up", OWL), call("look_up", ELK, "call_2"))), BOTH),
    make_kind("two-calls-in-one-delta", lambda turn: calls(call("look_up", OWL), call("look_up", ELK, "call_2"), deltas=({"tool_calls": [{"index": 0, **call("look_up", OWL)}, {"index": 1, **call("look_up", ELK, "call_2")}]},)), BOTH),
    make_kind("pieces-of-two-calls-alternate", lambda turn: calls(call("look_up", OWL), call("look_up", ELK, "call_2"), deltas=pieces({"index": 0, **call("look_up", "")}, {"index": 1, **call("look_up", "", "call_2")}, piece(OWL[:4], index=0), piece(ELK[:4], index=1), piece(OWL[4:], index=0), piece(ELK[4:], index=1))), BOTH),
    make_kind("indices-fall", lambda turn: calls(call("look_up", OWL), call("look_up", ELK, "call_2"), deltas=pieces({"index": 1, **call("look_up", OWL)}, {"index": 0, **call("look_up", ELK, "call_2")})), BOTH),
    make_kind("the-call-and-its-end-in-one-chunk", lambda turn: calls(call("look_up", OWL), deltas=pieces({"index": 0, **call("look_up", OWL)})), LOOKED, framing=Framing(finish_with_last=True)),
]  # fmt: skip


def _two_bookings_at_index_0(turn: str) -> ModelReply:
    """In pieces, as Ollama and gateways before it send parallel calls."""
    first, second = _booking(turn, 1), _booking(turn, 2, "call_2")
    sent_first = [{"index": 0, **call("book", "")}, *_rest(first)]
    sent_second = [{"index": 0, **call("book", "", "call_2")}, *_rest(second)]
    return calls(first, second, deltas=pieces(*sent_first, *sent_second))


def _rest(made: Json) -> list[Json]:
    arguments = made["function"]["arguments"]
    return [piece(arguments[:9], index=0), piece(arguments[9:14], index=0), piece(arguments[14:], index=0)]


def _inseparable(ask: ModelRequest, turn: str) -> HttpReply:
    """Pieces of two calls in turns, all at index 0 without ids: nobody can tell which is whose."""
    parts = [{"index": 0, **call("book", "")}, {"index": 0, **call("book", "", "call_2")}]
    first, second = (_booking(turn, seats)["function"]["arguments"] for seats in (1, 2))
    for at in range(0, len(first), 8):
        parts += [piece(first[at : at + 8], index=0), piece(second[at : at + 8], index=0)]
    made = closing_reply(ask) if ask.step else calls(_booking(turn, 1), deltas=pieces(*parts))
    return streamed(made)


BOOKED = expect_calls(("book", "ok"), deeds=("book 1",))
NO_DEED = (
    UNREADABLE,
    expect_not_run("book"),
    ExpectedTurn(outcomes=("success", "degraded"), calls=(("book", "error"), ("book", "error"))),
)
DEEDS = [
    make_kind("a-booking", lambda turn: calls(_booking(turn, 1)), BOOKED),
    make_kind("two-bookings-at-index-0", _two_bookings_at_index_0, expect_calls(("book", "ok"), ("book", "ok"), deeds=("book 1", "book 2"))),
    make_kind("a-booking-without-index", lambda turn: calls(_booking(turn, 1), deltas=pieces(call("book", ""), piece('{"seats": 1, '), piece(f'"turn": "{turn}"}}'))), BOOKED),
    ReplyKind(name="bookings-that-cannot-be-told-apart", whole=_inseparable, streamed=_inseparable, right=NO_DEED),
    make_kind("a-booking-with-its-defaults", lambda turn: calls(call("book", {"turn": turn})), expect_calls(("book", "ok"), deeds=("book 900",))),
    make_kind("the-same-booking-twice", lambda turn: calls(_booking(turn, 1), _booking(turn, 1, "call_2")), expect_calls(("book", "ok"), ("book", "ok"), deeds=("book 1", "book 1"))),
    *(
        make_kind(f"a-booking-with-{name}", lambda turn, made=made: calls(raw_call("book", made)), expect_not_run("book"), UNREADABLE)
        for name, made in (
            ("a-list", "[5]"), ("cut-arguments", '{"seats": 1'), ("a-key-twice", '{"seats": 1, "seats": 5}'),
            ("nan", '{"seats": NaN}'), ("two-objects", '{"seats": 1}{"seats": 2}'), ("words", "one seat, please"),
            ("a-number", "5"), ("a-real-list", [5]), ("a-real-number", 5), ("a-bool", True), ("trailing-words", '{"seats": 1} done'),
        )
    ),
    *(
        make_kind(f"a-refund-told-as-{name}", lambda turn, amount=amount: calls(call("refund", {"turn": turn, "amount": amount})), expect_calls(("refund", "ok"), contains=("refunded",), deeds=(f"refund {amount}",)))
        for amount, name in ((1, "odd-keys"), (2, "lone-surrogate"), (3, "four-megabytes"), (5, "text"))
    ),
    make_kind("a-refund-told-as-iterator", lambda turn: calls(call("refund", {"turn": turn, "amount": 4})), expect_calls(("refund", "ok"), deeds=("refund 4",))),
    make_kind(
        "a-refund-beside-an-illegal-name", lambda turn: calls(call("refund", {"turn": turn, "amount": 5}), call("look it up", OWL, "call_2")),
        ExpectedTurn(outcomes=("success", "degraded"), contains=("refunded 5",), calls=(("refund", "ok"), ("*", "error")), deeds=("refund 5",)),
    ),
]  # fmt: skip

ARGUMENTS = [
    _arguments("arguments-as-object", {"word": "owl"}, LOOKED),
    _arguments("arguments-encoded-twice", json.dumps(OWL), LOOKED),
    _arguments("arguments-fenced", f"```json\n{OWL}\n```", LOOKED),
    _arguments("arguments-fenced-without-language", f"```\n{OWL}```", LOOKED),
    _arguments("arguments-with-white-space", f"\n\t {OWL} \n", LOOKED),
    _arguments("arguments-with-a-byte-order-mark", "\ufeff" + OWL, LOOKED, expect_not_run("look_up")),
    _arguments("arguments-null", None, expect_not_run("look_up")),
    _arguments("arguments-null-text", "null", expect_not_run("look_up")),
    _arguments("arguments-empty", "", expect_not_run("look_up")),
    _arguments("arguments-absent", ABSENT, expect_not_run("look_up")),
    _arguments("arguments-of-python", "{'word': 'owl'}", expect_not_run("look_up"), LOOKED),
    _arguments("arguments-with-an-unknown-name", '{"word": "owl", "why": "asked"}', expect_not_run("look_up")),
    _arguments("arguments-wrapped", '{"input": {"word": "owl"}}', expect_not_run("look_up")),
    _arguments("argument-of-5000-digits", '{"word": ' + "7" * 5_000 + "}", expect_not_run("look_up")),
    _arguments("arguments-nested-deep", '{"word": ' + "[" * 50_000 + "]" * 50_000 + "}", expect_not_run("look_up"), UNREADABLE),
    _arguments("argument-with-a-real-line-break", '{"word": "ow\nl"}', expect_calls(("look_up", "ok")), expect_not_run("look_up")),
    make_kind("argument-with-half-an-emoji", lambda turn: calls(raw_call("look_up", '{"word": "owl\\ud83e"}')), expect_calls(("look_up", "ok"), contains=("owl\ufffd",)), harms=True),
    make_kind("argument-with-nul", lambda turn: calls(raw_call("look_up", '{"word": "o\\u0000wl"}')), expect_calls(("look_up", "ok")), harms=True),
    make_kind("nested-argument-as-text", lambda turn: calls(call("pack", {"boxes": '[{"a": 1}]', "wrapping": "paper"})), expect_calls(("pack", "ok"), contains=("packed 1 in paper",))),
]  # fmt: skip

NAMES = [
    *(make_kind(f"name-{name}", lambda turn, given=given: calls(call(given, OWL)), LOOKED) for name, given in (("with-prefix", "functions.look_up"), ("with-space", " look_up"), ("in-capitals", "Look_Up"))),
    *(
        make_kind(f"name-{name}", lambda turn, given=given: calls(raw_call(given, OWL)), expect_not_run("*"), UNREADABLE)
        for name, given in (("of-no-tool", "browse"), ("in-chinese", "查词"), ("empty", ""), ("null", None), ("absent", ABSENT), ("long", "look" * 40), ("a-number", 3))
    ),
]  # fmt: skip


def _legacy(turn: str) -> ModelReply:
    """OpenAI's form before tools."""
    function = {"name": "look_up", "arguments": OWL}
    message = {"role": "assistant", "content": None, "function_call": function}
    deltas = ({"function_call": {"name": "look_up", "arguments": ""}}, {"function_call": {"arguments": OWL}})
    return ModelReply(message=message, finish="function_call", deltas=deltas)


def _needs_reasoning(ask: ModelRequest, turn: str) -> HttpReply:
    """Models that think want an assistant's calls back with what it thought."""
    for each in ask.messages:
        if each.get("tool_calls") and not each.get("reasoning_content"):
            return error(400, "reasoning_content is missing in assistant tool call message")
    thought = {"role": "assistant", "content": "", "reasoning_content": "MUSING", "tool_calls": [call("look_up", OWL)]}
    made = closing_reply(ask) if ask.step else ModelReply(message=thought, finish="tool_calls")
    return streamed(made) if ask.stream else whole(made)


def _loops(ask: ModelRequest, turn: str) -> HttpReply:
    """Calls for as long as it has tools."""
    made = calls(call("look_up", OWL, f"c{ask.step}")) if ask.body.get("tools") else text("Enough.")
    return streamed(made) if ask.stream else whole(made)


def _after_the_end(ask: ModelRequest, turn: str) -> HttpReply:
    """The call comes after the chunk that says `stop`, as some gateways of Gemini's send it."""
    if ask.step or not ask.stream:
        made = closing_reply(ask) if ask.step else calls(call("look_up", OWL))
        return streamed(made) if ask.stream else whole(made)
    return events(
        [chunk({"role": "assistant"}, "stop"), chunk({"tool_calls": [{"index": 0, **call("look_up", OWL)}]}, "stop")]
    )


ENDS = [
    *(make_kind(f"calls-that-end-with-{finish}", lambda turn, finish=finish: calls(call("look_up", OWL), finish=finish), LOOKED) for finish in ("stop", "function_call", "tool_call")),
    make_kind("calls-beside-text", lambda turn: calls(call("look_up", OWL), content="I look it up."), LOOKED),
    make_kind("calls-with-content-empty", lambda turn: calls(call("look_up", OWL), content=""), LOOKED),
    make_kind("an-old-function-call", _legacy, LOOKED),
    make_kind("a-call-written-as-text", lambda turn: text('<tool_call>\n{"name": "look_up", "arguments": {"word": "owl"}}\n</tool_call>'), LOOKED, hidden=("<tool_call",)),
    ReplyKind(name="calls-that-need-their-reasoning", whole=_needs_reasoning, streamed=_needs_reasoning, right=(LOOKED,)),
    ReplyKind(name="calls-after-the-end", whole=_after_the_end, streamed=_after_the_end, right=(LOOKED,), streamed_right=(LOOKED, FAILED)),
    ReplyKind(name="calls-without-end", whole=_loops, streamed=_loops, right=(ExpectedTurn(outcomes=("degraded",), result="Enough.", calls=(("look_up", "ok"),) * 3),), within_s=20),
    make_kind("twenty-five-calls", lambda turn: calls(*(call("look_up", OWL, f"c{each}") for each in range(25))), ExpectedTurn(outcomes=("success", "degraded"), contains=("<owl>",), calls=(("look_up", "ok"),) * 20 + (("look_up", "refused"),) * 5)),
    *(make_kind(f"a-tool-that-fails-by-{how}", lambda turn, how=how: calls(call("stumble", {"how": how})), ExpectedTurn(outcomes=("success", "degraded"), contains=("stumble",), calls=(("stumble", "error"),)), harms=True) for how in ("exit", "deep", "group", "error")),
]  # fmt: skip

CALLS = [*IDS, *STEPS, *PLACES, *DEEDS, *ARGUMENTS, *NAMES, *ENDS]
