"""Bytes of a model's reply, whole and streamed, in the forms of many providers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from strict_provider import HttpReply

if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = {"prompt_tokens": 40, "completion_tokens": 8, "total_tokens": 48}
SSE = "text/event-stream; charset=utf-8"
ABSENT: Any = object()
"""Marks a field that is not sent."""
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    """One reply of a model, without its framing."""

    message: Json
    finish: Any = "stop"
    usage: Any = field(default_factory=USAGE.copy)
    deltas: tuple[Json, ...] | None = None
    """The deltas of its stream; None: one for the text, two for each call."""
    repeats_usage: bool = False
    """Whether each chunk of a stream carries the running usage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """How a reply becomes bytes."""

    line: str = "\n"
    prefix: str = "data: "
    before: str = ""
    """At the beginning of the body."""
    between: str = ""
    """Before each event, such as a comment or other fields."""
    done: bool = True
    ascii: bool = True
    piece: int = 0
    """Bytes of one piece; 0 sends each event on its own."""
    finish_with_last: bool = False
    """Whether the last delta and the finish reason stand in one chunk."""
    extra: tuple[Json, ...] = ()
    """Objects that follow the last choice."""
    ends: Literal["whole", "close", "abort", "hang"] = "whole"
    events: int | None = None
    """After so many events it ends; None is after all."""


PLAIN = Framing()


def text(words: str, finish: Any = "stop", **more: Any) -> ModelReply:
    return ModelReply(message={"role": "assistant", "content": words}, finish=finish, **more)


def call(name: Any, arguments: Any, called: Any = "call_1") -> Json:
    """One tool call; arguments other than text are written as JSON, and `ABSENT` leaves a field out."""
    written = arguments if isinstance(arguments, str) or arguments is ABSENT else json.dumps(arguments)
    return raw_call(name, written, called)


def raw_call(name: Any, arguments: Any, called: Any = "call_1") -> Json:
    """One tool call, its arguments just as they are."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not ABSENT}
    made = {"id": called, "type": "function", "function": function}
    return {key: value for key, value in made.items() if value is not ABSENT}


def calls(*made: Json, content: Any = None, finish: Any = "tool_calls", **more: Any) -> ModelReply:
    message = {"role": "assistant", "content": content, "tool_calls": list(made)}
    return ModelReply(message=message, finish=finish, **more)


def pieces(*parts: Json) -> tuple[Json, ...]:
    """Deltas that each bring one piece of one call."""
    return tuple({"tool_calls": [part]} for part in parts)


def piece(arguments: str, **more: Any) -> Json:
    """One piece of a call's arguments."""
    return {**more, "function": {"arguments": arguments}}


def whole(reply: ModelReply) -> HttpReply:
    """The reply as one JSON body."""
    choice = {"index": 0, "message": reply.message, "finish_reason": reply.finish}
    body = {"id": "r1", "object": "chat.completion", "created": 1, "model": "stub", "choices": [choice]}
    return json_reply(_without_absent({**body, "usage": reply.usage}))


def json_reply(body: Json | list[Any], status: int = 200, **more: Any) -> HttpReply:
    return HttpReply((json.dumps(body).encode(),), status=status, **more)


def error(
    status: int, message: str, code: Any = None, *, kind: str = "invalid_request_error", **more: Any
) -> HttpReply:
    """An error in OpenAI's form."""
    return json_reply({"error": {"message": message, "type": kind, "param": None, "code": code}}, status, **more)


def streamed(reply: ModelReply, framing: Framing = PLAIN) -> HttpReply:
    """The reply as server-sent events."""
    return events(chunks(reply, framing), framing)


def chunks(reply: ModelReply, framing: Framing = PLAIN) -> list[Json | str]:
    """The objects of a stream; those that a framing adds come last."""
    deltas = list(reply.deltas if reply.deltas is not None else _deltas(reply.message))
    usage = reply.usage if reply.repeats_usage else ABSENT
    sent = [chunk(delta, usage=usage) for delta in deltas]
    if framing.finish_with_last and sent:
        sent[-1]["choices"][0]["finish_reason"] = reply.finish
    else:
        sent.append(chunk({}, reply.finish, usage))
    if not reply.repeats_usage and reply.usage is not ABSENT:
        sent.append({**chunk({}, usage=reply.usage), "choices": []})
    return [*sent, *framing.extra]


def chunk(delta: Any, finish: Any = None, usage: Any = ABSENT, index: int = 0) -> Json:
    """One object of a stream."""
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    made = {"id": "r1", "object": "chat.completion.chunk", "created": 1, "model": "stub", "choices": [choice]}
    return _without_absent({**made, "usage": usage})


def events(objects: Sequence[Json | str], framing: Framing = PLAIN) -> HttpReply:
    """Server-sent events of the objects; text stands as it is in place of an event."""
    blank = framing.line * 2
    made = [
        framing.between + framing.prefix + json.dumps(each, ensure_ascii=framing.ascii) + blank
        if isinstance(each, dict)
        else each
        for each in objects
    ][: framing.events]
    if framing.done and framing.events is None:
        made.append(framing.prefix + "[DONE]" + blank)
    encoded = [each.encode() for each in ([framing.before, *made] if framing.before else made)]
    if framing.piece:
        blob = b"".join(encoded)
        encoded = [blob[at : at + framing.piece] for at in range(0, len(blob), framing.piece)]
    return HttpReply(tuple(encoded), content_type=SSE, end=framing.ends)


def cut(reply: HttpReply, at: int, ends: Literal["whole", "close", "abort", "hang"] = "whole") -> HttpReply:
    """The first bytes of a reply, and then its end."""
    blob = b"".join(reply.pieces)
    return replace(reply, pieces=(blob[:at],), end=ends)


def _deltas(message: Json) -> list[Json]:
    """How OpenAI itself cuts a message: a head, its text, and each call in two pieces."""
    rest = {key: value for key, value in message.items() if key not in {"tool_calls", "content"}}
    head = {**rest, **({"content": message["content"]} if "content" in message else {})}
    calls = enumerate(message.get("tool_calls") or [])
    return [head, *(part for place, made in calls for part in _halves(place, made))]


def _halves(place: int, made: Json) -> list[Json]:
    arguments = made["function"].get("arguments", ABSENT)
    if not isinstance(arguments, str) or len(arguments) < 2:
        return [{"tool_calls": [{"index": place, **made}]}]
    first, middle = {**made, "function": {**made["function"], "arguments": ""}}, len(arguments) // 2
    later = [{"index": place, "function": {"arguments": part}} for part in (arguments[:middle], arguments[middle:])]
    return [{"tool_calls": [{"index": place, **first}]}, *({"tool_calls": [each]} for each in later)]


def _without_absent(body: Json) -> Json:
    return {key: value for key, value in body.items() if value is not ABSENT}
