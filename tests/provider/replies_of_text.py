"""Replies of text: content, thinking, characters, framing of streams, usage."""

from __future__ import annotations

import gzip
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reply_bytes import ABSENT, SSE, USAGE, Framing, Json, ModelReply, chunk, events, json_reply, streamed, text, whole
from reply_kinds import REFUSAL, UNREADABLE, ExpectedTurn, ReplyKind, make_kind, make_raw_kind

if TYPE_CHECKING:
    from strict_provider import HttpReply, ModelRequest

WORDS = "Grüße, 世界 🦉 and so on."
SAYS_WORDS = ExpectedTurn(result=WORDS)
THOUGHT, ANSWER = "MUSING about the plan", "The answer is 42."
SAYS_ANSWER = ExpectedTurn(result=ANSWER)
EMPTY = (UNREADABLE, ExpectedTurn(outcomes=("degraded",)))


def _message(**fields: Any) -> Json:
    return {key: value for key, value in {"role": "assistant", **fields}.items() if value is not ABSENT}


def _says(
    name: str, message: Json, *right: ExpectedTurn, deltas: tuple[Json, ...] | None = None, **more: Any
) -> ReplyKind:
    return make_kind(name, lambda turn: ModelReply(message=message, deltas=deltas), *right, **more)


def _in_deltas(*parts: str) -> tuple[Json, ...]:
    return tuple({"content": part} for part in parts)


def _thinks(name: str, words: str, *right: ExpectedTurn, deltas: tuple[Json, ...] | None = None) -> ReplyKind:
    hidden = ("MUSING", "<think", "</think", "[THINK")
    return _says(name, _message(content=words), *right, deltas=deltas, hidden=hidden)


CONTENT = [
    _says("text", _message(content=WORDS), SAYS_WORDS),
    _says("content-in-parts", _message(content=[{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]), ExpectedTurn(result="one two")),
    _says("content-in-parts-with-nulls", _message(content=[None, {"type": "text", "text": None}, {"type": "text", "text": "two"}]), ExpectedTurn(result="two")),
    _says("content-null", _message(content=None), *EMPTY),
    _says("content-absent", _message(), *EMPTY),
    _says("content-blank", _message(content=" \n"), *EMPTY),
    _says("content-a-number", _message(content=42), ExpectedTurn(result="42"), UNREADABLE),
    _says("content-of-an-object", _message(content={"type": "text", "text": WORDS}), SAYS_WORDS, UNREADABLE),
    _says("refusal", _message(content=None, refusal="I will not do that."), REFUSAL, tries=1),
    _says("refusal-in-parts", _message(content=[{"type": "refusal", "refusal": "I will not do that."}]), REFUSAL, tries=1),
    _says("refusal-null", _message(content=WORDS, refusal=None), SAYS_WORDS),
    _says("role-absent", {"content": WORDS}, SAYS_WORDS),
    _says("calls-null", _message(content=WORDS, tool_calls=None, function_call=None, audio=None), SAYS_WORDS, deltas=({"content": WORDS, "tool_calls": None, "function_call": None},)),
    _says("calls-empty", _message(content=WORDS, tool_calls=[]), SAYS_WORDS),
    _says("unknown-fields", _message(content=WORDS, annotations=[], audio={"id": "x"}, custom={"a": [1]}), SAYS_WORDS),
    _says("very-long", _message(content="wordy " * 20_000), ExpectedTurn(contains=("wordy wordy",))),
]  # fmt: skip

THINKING = [
    _thinks("think-tags", f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}", SAYS_ANSWER),
    _thinks("thinking-tags", f"<thinking>{THOUGHT}</thinking>{ANSWER}", SAYS_ANSWER),
    _thinks("think-tags-empty", f"<think>\n\n</think>\n\n{ANSWER}", SAYS_ANSWER),
    _thinks("think-tags-without-beginning", f"{THOUGHT}\n</think>\n{ANSWER}", SAYS_ANSWER),
    _thinks("think-tags-without-end", f"<think>{THOUGHT}", *EMPTY),
    _thinks("thinking-only", f"<think>{THOUGHT}</think>", *EMPTY),
    _thinks("think-tags-in-pieces", f"<think>{THOUGHT}</think>{ANSWER}", SAYS_ANSWER, deltas=_in_deltas("<th", "ink>MU", "SING about the plan</", "thi", "nk>The ans", "wer is 42.")),
    _thinks("think-tags-letter-by-letter", f"<think>{THOUGHT}</think>{ANSWER}", SAYS_ANSWER, deltas=_in_deltas(*f"<think>{THOUGHT}</think>{ANSWER}")),
    _says("reasoning-content", _message(content=ANSWER, reasoning_content=THOUGHT), SAYS_ANSWER),
    _says("reasoning-content-in-deltas", _message(content=ANSWER, reasoning_content=THOUGHT), SAYS_ANSWER, deltas=({"role": "assistant", "content": None, "reasoning_content": "MUS"}, {"reasoning_content": "ING", "content": None}, {"content": ANSWER, "reasoning_content": None})),
    _says("reasoning", _message(content=ANSWER, reasoning=THOUGHT), SAYS_ANSWER),
    _says("reasoning-details", _message(content=ANSWER, reasoning_details=[{"type": "reasoning.text", "text": THOUGHT}]), SAYS_ANSWER),
    _says("reasoning-only", _message(content="", reasoning_content=THOUGHT), *EMPTY),
    _says("thinking-parts", _message(content=[{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}, {"type": "text", "text": ANSWER}]), SAYS_ANSWER),
    _says("thinking-parts-of-text", _message(content=[{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": ANSWER}]), SAYS_ANSWER),
    _says("reasoning-parts", _message(content=[{"type": "reasoning", "reasoning": THOUGHT}, {"type": "text", "text": ANSWER}]), SAYS_ANSWER),
]  # fmt: skip


def _escaped(*parts: str) -> tuple[str, ...]:
    """Events whose text has escapes that Python itself does not write."""
    head = (
        '{"id":"r","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"'
    )
    ends = [*("null" for _ in parts[1:]), '"stop"']
    return tuple(f'data: {head}{part}"}},"finish_reason":{end}}}]}}\n\n' for part, end in zip(parts, ends, strict=True))


def _escaped_whole(content: str) -> bytes:
    head = '{"id":"r","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"'
    return f'{head}{content}"}},"finish_reason":"stop"}}]}}'.encode()


def _letters(name: str, parts: tuple[str, ...], *right: ExpectedTurn) -> ReplyKind:
    """Text by its JSON escapes, in so many chunks."""
    body = replace(json_reply({}), pieces=(_escaped_whole("".join(parts)),))
    return ReplyKind(
        name=name, whole=lambda ask, turn: body, streamed=lambda ask, turn: events(_escaped(*parts)), right=right, harms=True
    )  # fmt: skip


def _bytes(name: str, content: bytes, *right: ExpectedTurn) -> ReplyKind:
    """Text in bytes that are not UTF-8."""
    body = _escaped_whole("MARK").replace(b"MARK", content)
    stream = _escaped("MARK")[0].encode().replace(b"MARK", content)
    return ReplyKind(
        name=name,
        whole=lambda ask, turn: replace(json_reply({}), pieces=(body,)),
        streamed=lambda ask, turn: replace(events([]), pieces=(stream, b"data: [DONE]\n\n")),
        right=right,
    )


LETTERS = [
    _letters("half-an-emoji", ("bad \\ud83e half",), ExpectedTurn(result="bad \ufffd half")),
    _letters("the-other-half-of-an-emoji", ("bad \\udd89 half",), ExpectedTurn(result="bad \ufffd half")),
    _letters("halves-the-wrong-way-round", ("bad \\udd89\\ud83e half",), ExpectedTurn(result="bad \ufffd\ufffd half")),
    _letters("an-emoji-in-two-chunks", ("an \\ud83e", "\\udd89 owl"), ExpectedTurn(result="an 🦉 owl")),
    _letters("half-an-emoji-at-the-end", ("an \\ud83e", ""), ExpectedTurn(result="an \ufffd")),
    _letters(
        "half-an-emoji-between-chunks", ("an \\ud83e", "x \\udd89 owl"), ExpectedTurn(result="an \ufffdx \ufffd owl")
    ),
    _letters("nul", ("a\\u0000b",), ExpectedTurn(contains=("a", "b"))),
    _letters("control-characters", ("a\\u001b[31mb\\u0007",), ExpectedTurn(contains=("a", "b"))),
    _bytes("bytes-that-are-no-utf-8", b"bad \xff\xfe text", ExpectedTurn(result="bad \ufffd\ufffd text"), UNREADABLE),
    _bytes("latin-1", "Grüße".encode("latin-1"), ExpectedTurn(contains=("Gr", "e")), UNREADABLE),
    _bytes("surrogates-as-bytes", b"an \xed\xa0\xbe owl", ExpectedTurn(contains=("an ", " owl")), UNREADABLE),
]


def _framed(
    name: str, framing: Framing, *right: ExpectedTurn, deltas: tuple[Json, ...] | None = None, **more: Any
) -> ReplyKind:
    made = text(WORDS, deltas=deltas or _in_deltas(WORDS[:9], WORDS[9:]))
    return make_kind(name, lambda turn: made, *(right or (SAYS_WORDS,)), framing=framing, **more)


def _spaced(ask: ModelRequest, turn: str) -> HttpReply:
    """White space around a body, as a proxy that keeps a connection alive sends."""
    reply = whole(text(WORDS))
    return replace(reply, pieces=(b"\n \n", *reply.pieces, b"\n\n"))


def _gzipped(ask: ModelRequest, turn: str) -> HttpReply:
    reply = streamed(text(WORDS)) if ask.stream else whole(text(WORDS))
    blob = gzip.compress(b"".join(reply.pieces))
    return replace(reply, pieces=(blob[:21], blob[21:]), headers=(("Content-Encoding", "gzip"),))


def _nan(ask: ModelRequest, turn: str) -> HttpReply:
    reply = streamed(text(WORDS)) if ask.stream else whole(text(WORDS))
    return replace(reply, pieces=tuple(each.replace(b'"created": 1', b'"created": NaN') for each in reply.pieces))


def _two_choices(ask: ModelRequest, turn: str) -> HttpReply:
    if ask.stream:
        parts = [(0, WORDS[:9], None), (1, "other", None), (0, WORDS[9:], None), (1, "", "stop"), (0, "", "stop")]
        return events([chunk({"content": part}, finish, index=index) for index, part, finish in parts])
    choices = [{"index": at, "message": _message(content=each), "finish_reason": "stop"} for at, each in enumerate((WORDS, "other"))]  # fmt: skip
    return json_reply({"id": "r", "object": "chat.completion", "created": 1, "model": "m", "choices": choices})


def _typed(content_type: str, *, body: bool) -> Any:
    def made(ask: ModelRequest) -> HttpReply:
        reply = whole(text(WORDS)) if body else streamed(text(WORDS))
        return replace(reply, content_type=content_type)

    return made


def _empty_reasons(ask: ModelRequest, turn: str) -> HttpReply:
    """`""` in place of null until the last chunk."""
    if not ask.stream:
        return whole(text(WORDS))
    return events([chunk({"content": WORDS[:9]}, ""), chunk({"content": WORDS[9:]}, ""), chunk({}, "stop", USAGE)])


KEEP_ALIVE: tuple[Json, ...] = ({"choices": []}, {"choices": None}, {"object": "ping"}, {"choices": [], "usage": None})
FRAMING = [
    _framed("lines-end-with-crlf", Framing(line="\r\n")),
    _framed("lines-end-with-cr", Framing(line="\r")),
    _framed("no-space-after-data", Framing(prefix="data:")),
    _framed("a-byte-order-mark", Framing(before="\ufeff")),
    _framed("comments", Framing(before=": begin\n\n", between=": still here\n\n")),
    _framed("other-fields", Framing(between="event: message\nid: 7\nretry: 100\n")),
    _framed("empty-data", Framing(between="data:\n\n")),
    _framed("bytes-in-sevens", Framing(piece=7, ascii=False)),
    _framed("bytes-one-by-one", Framing(piece=1, ascii=False)),
    _framed("crlf-and-bytes-in-threes", Framing(piece=3, line="\r\n", ascii=False)),
    _framed("no-done", Framing(done=False)),
    _framed("finish-with-the-last-words", Framing(finish_with_last=True)),
    _framed("objects-without-choices", Framing(extra=KEEP_ALIVE)),
    _framed("a-delta-null", Framing(extra=({"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]},))),
    _framed("role-in-each-delta", Framing(), deltas=tuple({"role": "assistant", "content": each} for each in (WORDS[:9], WORDS[9:]))),
    _framed("role-empty", Framing(), deltas=tuple({"role": "", "content": each} for each in (WORDS[:9], WORDS[9:]))),
    ReplyKind(name="finish-empty-until-the-end", whole=_empty_reasons, streamed=_empty_reasons, right=(SAYS_WORDS,)),
    ReplyKind(name="white-space-around-the-body", whole=_spaced, streamed=_spaced, right=(SAYS_WORDS,)),
    ReplyKind(name="gzip", whole=_gzipped, streamed=_gzipped, right=(SAYS_WORDS,)),
    ReplyKind(name="nan-beside-the-choice", whole=_nan, streamed=_nan, right=(SAYS_WORDS,)),
    ReplyKind(name="two-choices", whole=_two_choices, streamed=_two_choices, right=(SAYS_WORDS,)),
    make_raw_kind("a-body-though-a-stream-was-asked-for", _typed("application/json", body=True), SAYS_WORDS),
    make_raw_kind("a-body-that-says-it-is-a-stream", _typed(SSE, body=True), SAYS_WORDS),
    make_raw_kind("a-stream-though-a-body-was-asked-for", _typed(SSE, body=False), SAYS_WORDS),
    make_raw_kind("a-stream-that-says-it-is-json", _typed("application/json", body=False), SAYS_WORDS),
    make_raw_kind("a-stream-that-says-it-is-text", _typed("text/plain", body=False), SAYS_WORDS),
]  # fmt: skip


def _costs(name: str, usage: Any, *right: ExpectedTurn, **more: Any) -> ReplyKind:
    return make_kind(f"usage-{name}", lambda turn: text(WORDS, usage=usage, **more), *(right or (SAYS_WORDS,)))


def _counted(input_tokens: int, output_tokens: int) -> ExpectedTurn:
    return ExpectedTurn(result=WORDS, usage=(input_tokens, output_tokens))


DETAILS = {**USAGE, "prompt_tokens_details": {"cached_tokens": None}, "completion_tokens_details": None}
COSTS = [
    _costs("given", USAGE, _counted(40, 8)),
    _costs("repeated-in-each-chunk", USAGE, _counted(40, 8), repeats_usage=True),
    _costs("absent", ABSENT),
    _costs("null", None),
    _costs("empty", {}),
    _costs("of-nulls", dict.fromkeys(USAGE)),
    _costs("of-floats", {key: float(value) for key, value in USAGE.items()}, _counted(40, 8)),
    _costs("of-text", {key: str(value) for key, value in USAGE.items()}),
    _costs("with-null-details", DETAILS, _counted(40, 8)),
    _costs("negative", dict.fromkeys(USAGE, -1)),
    _costs("a-list", [40, 8]),
    _costs("without-total", {"prompt_tokens": 40, "completion_tokens": 8}, _counted(40, 8)),
]

TEXTS = [*CONTENT, *THINKING, *LETTERS, *FRAMING, *COSTS]
