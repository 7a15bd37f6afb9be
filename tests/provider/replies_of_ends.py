"""Replies that are cut off, refused or are errors, and conversations that are too long."""

from __future__ import annotations

import json
from dataclasses import replace
from email.utils import formatdate
from time import time
from typing import TYPE_CHECKING, Any

from reply_bytes import Framing, Json, call, calls, chunk, error, events, json_reply, raw_call, streamed, text, whole
from reply_kinds import (
    CLOSING,
    FAILED,
    FINAL,
    REFUSAL,
    REFUSED_INPUT,
    TRUNCATED,
    UNREADABLE,
    ExpectedTurn,
    ReplyKind,
    closing_reply,
    make_kind,
    make_raw_kind,
)
from strict_provider import HttpReply

if TYPE_CHECKING:
    from collections.abc import Callable

    from strict_provider import ModelRequest

HALF = "First switch it off, then remove the"
WELL = ExpectedTurn(result="Back again.")
NOT_A_WHOLE_ANSWER = ExpectedTurn(
    outcomes=("degraded",), degraded=("truncated",), finish=("length", "content_filter", "stop")
)
CUT = (UNREADABLE, NOT_A_WHOLE_ANSWER)
NOTHING_DONE = (FAILED, REFUSAL, ExpectedTurn(outcomes=("degraded",), finish=("length", "content_filter", "stop")))


def _ends(name: str, finish: Any, *right: ExpectedTurn, words: str = HALF, **more: Any) -> ReplyKind:
    return make_kind(name, lambda turn: text(words, finish), *right, **more)


def _call_ends(name: str, arguments: Callable[[str], str], finish: Any) -> ReplyKind:
    made = lambda turn: calls(raw_call("book", arguments(turn)), finish=finish)  # noqa: E731
    return make_kind(name, made, *NOTHING_DONE)


def _cut_call(turn: str) -> str:
    return f'{{"turn": "{turn}", "seats": 1'


def _whole_call(turn: str) -> str:
    return f"{_cut_call(turn)}}}"


REASONS = [
    _ends("length", "length", TRUNCATED),
    _ends("length-without-words", "length", *CUT, words=""),
    _ends("content-filter", "content_filter", ExpectedTurn(outcomes=("success", "degraded"), finish=("content_filter",))),
    _ends("content-filter-without-words", "content_filter", REFUSAL, words="", tries=1),
    _ends("sensitive", "sensitive", REFUSAL, words="", tries=1),
    _ends("network-error", "network_error", *CUT),
    _ends("error", "error", *CUT),
    _ends("insufficient-system-resource", "insufficient_system_resource", *CUT),
    _ends("no-finish-reason", None, *CUT),
    _ends("eos", "eos", ExpectedTurn(result=HALF), *CUT),
    *(
        _call_ends(f"a-booking-{cut}-ends-with-{finish}", arguments, finish)
        for finish in ("length", "content_filter", "sensitive", "network_error", "error")
        for cut, arguments in (("without-arguments", lambda turn: ""), ("cut-off", _cut_call), ("whole", _whole_call))
    ),
    _call_ends("a-booking-cut-off-with-no-reason", _cut_call, None),
    _call_ends("a-booking-without-arguments-and-reason", lambda turn: "", None),
]  # fmt: skip


def _stream_ends(
    name: str, objects: Callable[[str], list[Json | str]], ends: Any = "whole", *right: ExpectedTurn
) -> ReplyKind:
    """The stream ends in its middle; asked without one, the model answers well."""

    def stopped(ask: ModelRequest, turn: str) -> HttpReply:
        return streamed(closing_reply(ask)) if ask.step else events(objects(turn), Framing(done=False, ends=ends))

    well = lambda ask, turn: whole(text("Back again."))  # noqa: E731
    return ReplyKind(name=name, whole=well, streamed=stopped, right=(WELL,), streamed_right=right or CUT)


WORDS: list[Json | str] = [chunk({"role": "assistant", "content": "First switch it "}), chunk({"content": "off"})]


def _begun(turn: str, arguments: str) -> list[Json | str]:
    return [chunk({"tool_calls": [{"index": 0, **call("book", arguments)}]})]


ERROR: Json = {"error": {"message": "engine died: MUSING", "type": "server_error", "code": 500}}
STREAMS = [
    _stream_ends("a-stream-that-ends-in-good-order", lambda turn: WORDS),
    _stream_ends("a-stream-whose-connection-closes", lambda turn: WORDS, "close"),
    _stream_ends("a-stream-that-breaks-off", lambda turn: WORDS, "abort"),
    _stream_ends("a-stream-without-anything", lambda turn: []),
    _stream_ends("a-stream-of-comments", lambda turn: [": hello\n\n"] * 3),
    _stream_ends("an-error-in-the-middle", lambda turn: [*WORDS, ERROR]),
    _stream_ends("an-error-at-the-beginning", lambda turn: [ERROR]),
    _stream_ends("an-error-event", lambda turn: [*WORDS, 'event: error\ndata: {"message": "MUSING"}\n\n']),
    _stream_ends("an-error-event-of-text", lambda turn: [*WORDS, "event: error\ndata: MUSING\n\n"]),
    _stream_ends("json-cut-in-the-middle", lambda turn: [*WORDS, 'data: {"id": "r", "choi\n\n', chunk({}, "stop")]),
    _stream_ends("html-in-the-middle", lambda turn: [*WORDS, "data: <html>MUSING</html>\n\n"]),
    _stream_ends("a-name-and-then-the-end", lambda turn: _begun(turn, ""), "whole", *NOTHING_DONE),
    _stream_ends("a-name-and-then-a-reset", lambda turn: _begun(turn, ""), "abort", *NOTHING_DONE),
    _stream_ends("half-the-arguments-and-then-the-end", lambda turn: _begun(turn, _cut_call(turn)), "whole", *NOTHING_DONE),
    _stream_ends("all-the-arguments-and-then-the-end", lambda turn: _begun(turn, _whole_call(turn)), "close", *NOTHING_DONE),
    _stream_ends("all-the-arguments-and-then-an-error", lambda turn: [*_begun(turn, _whole_call(turn)), ERROR], "whole", *NOTHING_DONE),
]  # fmt: skip


def _body(name: str, content: bytes, *right: ExpectedTurn, **more: Any) -> ReplyKind:
    reply = HttpReply((content,), **more)
    return make_raw_kind(name, lambda ask: reply, *(right or (UNREADABLE,)))


BODIES = [
    _body("html", b"<html>MUSING gateway</html>", content_type="text/html"),
    _body("empty", b""),
    _body("blank", b" \n"),
    _body("json-cut-off", b'{"id": "r", "choices": [{"index": 0, "message": {"content": "x'),
    _body("null", b"null"),
    _body("a-list", b"[]"),
    _body("no-choices", b'{"id": "r", "object": "chat.completion", "choices": []}'),
    _body("choices-null", b'{"id": "r", "object": "chat.completion", "choices": null}'),
    _body("message-null", b'{"id": "r", "choices": [{"index": 0, "message": null, "finish_reason": "stop"}]}'),
    _body("a-nesting-bomb", b"[" * 200_000),
    _body("an-error-under-200", json.dumps(ERROR).encode()),
    _body("a-code-under-200", b'{"code": 500, "msg": "MUSING", "success": false}'),
    _body("a-base-response-under-200", b'{"base_resp": {"status_code": 1000, "status_msg": "MUSING"}}', FAILED),
    _body("html-of-a-gateway", b"<html>MUSING</html>", UNREADABLE, status=502, content_type="text/html"),
]

TOO_LONG = ExpectedTurn(outcomes=(REFUSED_INPUT,), retryable=False)
OVERFLOWS = [
    make_raw_kind(f"overflow-of-{name}", lambda ask, reply=reply: reply, TOO_LONG)
    for name, reply in {
        "openai": error(400, "This model's maximum context length is 16385 tokens. Please reduce the length of the messages.", "context_length_exceeded"),
        "anthropic": json_reply({"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 215000 tokens > 200000 maximum"}}, 400),
        "gemini": json_reply([{"error": {"code": 400, "message": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", "status": "INVALID_ARGUMENT"}}], 400),
        "zhipu": error(400, "Prompt 超长", "1261"),
        "dashscope": error(400, "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 98304]", "invalid_parameter_error"),
        "moonshot": error(400, "Invalid request: Your request exceeded model token limit: 131072"),
        "deepseek": error(400, "This model's maximum context length is 65536 tokens. However, you requested 70000 tokens."),
        "vllm": json_reply({"object": "error", "message": "The decoder prompt (length 9000) is longer than the maximum model length of 8192.", "type": "BadRequestError", "code": 400}, 400),
        "llama-cpp": error(400, "request (9000 tokens) exceeds the available context size (4096 tokens), try increasing it", 400, kind="exceed_context_size_error"),
        "groq": error(400, "Please reduce the length of the messages or completion.", "context_length_exceeded"),
        "groq-413": error(413, "Request too large for model: Limit 6000, Requested 9000, please reduce your message size", "rate_limit_exceeded", kind="tokens"),
        "bedrock": error(400, "Input is too long for requested model."),
        "azure": error(400, "This model's maximum context length is 8192 tokens, however you requested 9000 tokens", "context_length_exceeded"),
    }.items()
]  # fmt: skip


def _once(name: str, first: Callable[[], HttpReply], right: ExpectedTurn = WELL, **more: Any) -> ReplyKind:
    """Fails once and then answers well."""

    def answer(ask: ModelRequest, turn: str) -> HttpReply:
        if not ask.number:
            return first()
        return streamed(text("Back again.")) if ask.stream else whole(text("Back again."))

    return ReplyKind(name=name, whole=answer, streamed=answer, right=(right,), **more)


def _busy(**headers: str) -> HttpReply:
    fields = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return error(429, "slow down: MUSING", "rate_limit_exceeded", headers=fields)


PASSING = [
    _once("busy-once", lambda: error(503, "busy: MUSING", kind="server_error")),
    _once("too-many-once", _busy),
    _once("wait-a-second", lambda: _busy(Retry_After="1")),
    _once("wait-until-a-date", lambda: _busy(Retry_After=formatdate(time() + 1.5, usegmt=True))),
    _once("wait-milliseconds", lambda: _busy(retry_after_ms="600")),
    _once("wait-nonsense", lambda: _busy(Retry_After="soon")),
    _once("html-once", lambda: HttpReply((b"<html>MUSING</html>",), content_type="text/html")),
    _once("json-cut-off-once", lambda: HttpReply((b'{"id": "r", "choi',))),
    _once("reset-once", lambda: replace(whole(text("x")), pieces=(b'{"id"',), end="abort")),
    _once("an-error-under-200-once", lambda: json_reply(ERROR)),
]
LASTING = [
    make_raw_kind("overloaded", lambda ask: error(529, "MUSING", kind="overloaded_error"), UNREADABLE),
    make_raw_kind("wrong-key", lambda ask: error(401, "Incorrect API key provided: MUSING", "invalid_api_key"), FINAL, tries=1),
    make_raw_kind("forbidden-in-html", lambda ask: HttpReply((b"MUSING",), status=403, content_type="text/html"), FINAL, tries=1),
    make_raw_kind("no-such-model", lambda ask: error(404, "MUSING", "model_not_found"), FINAL, tries=1),
    make_raw_kind("no-money-of-openai", lambda ask: error(429, "You exceeded your current quota, MUSING", "insufficient_quota", kind="insufficient_quota"), FAILED, tries=1),
    make_raw_kind("no-money-of-zhipu", lambda ask: error(429, "您的账户已欠费,请充值后重试。MUSING", "1113"), FAILED, tries=1),
    make_raw_kind("no-money-of-deepseek", lambda ask: error(402, "Insufficient Balance MUSING"), FAILED, tries=1),
    make_raw_kind("refused-by-zhipu", lambda ask: json_reply({"error": {"code": "1301", "message": "内容可能包含不安全或敏感内容 MUSING"}, "contentFilter": [{"role": "user", "level": 0}]}, 400), REFUSAL, tries=1),
    make_raw_kind("refused-by-azure", lambda ask: error(400, "The response was filtered due to the prompt triggering content management policy. MUSING", "content_filter"), REFUSAL, tries=1),
    make_raw_kind("refused-by-dashscope", lambda ask: error(400, "Input data may contain inappropriate content. MUSING", "data_inspection_failed"), REFUSAL, tries=1),
]  # fmt: skip


def _without_stream_options(ask: ModelRequest, turn: str) -> HttpReply:
    if "stream_options" in ask.body:
        return error(400, "stream_options: extra inputs are not permitted")
    return streamed(text("Back again.")) if ask.stream else whole(text("Back again."))


def _small(ask: ModelRequest, turn: str) -> HttpReply:
    """A model that reads 60,000 characters, after a tool has said more."""
    if sum(len(str(each.get("content"))) for each in ask.messages) > 60_000:
        return error(400, "This model's maximum context length is 16000 tokens.", "context_length_exceeded")
    made = closing_reply(ask) if ask.step else calls(call("refund", {"turn": turn, "amount": 3}))
    return streamed(made) if ask.stream else whole(made)


PARAMETERS = [
    ReplyKind(name="no-stream-options", whole=_without_stream_options, streamed=_without_stream_options, right=(WELL,)),
    ReplyKind(
        name="a-result-that-does-not-fit", whole=_small, streamed=_small,
        right=(ExpectedTurn(outcomes=("success", "degraded"), contains=(CLOSING,), calls=(("refund", "ok"),), deeds=("refund 3",)),),
    ),
]  # fmt: skip


def _reads_little(ask: ModelRequest, turn: str) -> HttpReply:
    """A model that reads 3,000 characters beside its prompt, and writes as it likes."""
    if sum(len(str(each.get("content"))) for each in ask.messages[1:]) > 3_000:
        return error(400, "This model's maximum context length is 1000 tokens.", "context_length_exceeded")
    return streamed(text("wordy " * 200)) if ask.stream else whole(text("wordy " * 200))


READS_LITTLE = ReplyKind(
    name="reads-little", whole=_reads_little, streamed=_reads_little, right=(ExpectedTurn(contains=("wordy",)),)
)
SLOW = [
    ReplyKind(
        name="a-body-that-stops", whole=lambda ask, turn: replace(whole(text("x")), pieces=(b"{",), end="hang"),
        streamed=lambda ask, turn: events(WORDS, Framing(done=False, ends="hang")),
        right=(FAILED, ExpectedTurn(outcomes=("deadline_exceeded",))), streamed_right=(FAILED, NOT_A_WHOLE_ANSWER), within_s=40,
    ),
]  # fmt: skip

STOPS = [*REASONS, *STREAMS, *BODIES, *OVERFLOWS, *PASSING, *LASTING, *PARAMETERS]
