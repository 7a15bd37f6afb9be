"""Decodes replies: streamed or whole, the same reply has the same meaning."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata

from serve_app.llm.openai_compatible.provider_error import (
    ProviderError,
    ReplyIncomplete,
    ReplyUnreadable,
    find_error,
    load_object,
)
from serve_app.llm.openai_compatible.tool_calls import CallAssembler, InvalidArguments, ProviderCall, unique_keys
from serve_app.llm.openai_compatible.transport import EventParser, StreamEvent
from serve_app.values.sanitize import REPLACEMENT, sanitize_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


MAX_WHOLE_BYTES = 8 * 1024 * 1024
MAX_STREAM_BYTES = 128 * 1024 * 1024
"""A streamed token costs some 300 bytes, so a stream may be longer than what it says."""
MAX_CHARACTERS = 8 * 1024 * 1024

COMPLETE = frozenset(
    ("stop", "tool_calls", "tool_call", "tool_use", "function_call", "end_turn", "eos", "eos_token", "stop_sequence")
)
"""Finish reasons after which tool calls are made. After any other they may be cut, and are left out."""

FAILED = frozenset(("error", "network_error"))
_PINGS = frozenset(("ping", "keepalive", "keep-alive", "heartbeat"))


class ReplyDelta(NamedTuple):
    """The text and the thinking that one piece of a reply adds."""

    text: str
    reasoning: str


@dataclass(frozen=True, slots=True)
class ProviderReply:
    """One complete reply."""

    text: str
    reasoning: str
    refusal: str
    calls: tuple[ProviderCall, ...]
    cut_calls: int
    """The number of calls left out because the reply was cut off."""
    usage: UsageMetadata | None
    finish_reason: str | None
    model: str
    id: str


class ReplyDecoder:
    """Decodes the bytes of a response with status 200.

    Server-sent events and a whole JSON body are told apart by their first character, whichever was asked for.

    Raises, in both methods:
        ReplyUnreadable: the bytes make no reply.
        ReplyIncomplete: they end too early.
        ProviderError: they carry an error.
    """

    def __init__(self, *, accepts_done_as_end: bool = False) -> None:
        self._accepts_done = accepts_done_as_end
        self._events: EventParser | None = None
        self._head: list[bytes] = []
        self._whole = False
        self._bytes = 0
        self._seen = False
        self._finish: str | None = None
        self._text, self._reasoning, self._refusal = TextJoiner(), TextJoiner(), TextJoiner()
        self._calls, self._legacy_call = CallAssembler(), CallAssembler()
        self._usage = UsageReader()
        self._model = self._id = ""
        self.done = False
        """Whether `[DONE]` has come."""

    @property
    def finished(self) -> bool:
        """Whether the provider sent a finish reason, or an end that counts as one."""
        return self._finish is not None or (self.done and self._accepts_done)

    def feed(self, data: bytes) -> Iterator[ReplyDelta]:
        """Take the next bytes and yield what they add, joined, also before it raises."""
        self._bytes += len(data)
        if self._bytes > (MAX_STREAM_BYTES if self._events else MAX_WHOLE_BYTES):
            raise ReplyUnreadable("the reply is too long")
        if self._events is None:
            self._head.append(data)
            if self._whole or not self._is_stream():
                return
            data = b"".join(self._head)
            self._events = EventParser()
        yield from _join(self._take_events(self._events.feed(data)))

    def close(self) -> tuple[ReplyDelta, ProviderReply]:
        """End the reply; return the part that was not yielded yet, and the whole."""
        shown = len(self._text.text), len(self._reasoning.text)
        if self._events is not None:
            self._take_last(self._events.close())
        else:
            self._take_whole(b"".join(self._head))
        for joiner in (self._text, self._reasoning, self._refusal):
            joiner.flush()
        if not self.finished:
            raise ReplyIncomplete("the bytes of the reply ended before it did")
        reply = self._reply()
        return ReplyDelta(reply.text[shown[0] :], reply.reasoning[shown[1] :]), reply

    def _is_stream(self) -> bool:
        start = b"".join(self._head).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        if not start:
            return False
        self._whole = start in b"{[<"
        return not self._whole

    def _take_whole(self, body: bytes) -> None:
        source = body.decode("utf-8-sig", "replace")
        payload = load_object(source)
        if payload is not None:
            self._take(payload, source)
        if not self._seen:
            raise ReplyUnreadable(_excerpt(source))
        self.done = True

    def _take_last(self, events: list[StreamEvent]) -> None:
        """Take the last events; an event that is cut is ignored."""
        try:
            deque(self._take_events(events), maxlen=0)
        except ReplyUnreadable:
            if not self.finished:
                raise ReplyIncomplete("the bytes of the reply ended inside of an event") from None
        if not self._seen and not self.done:
            raise ReplyUnreadable("no event of a reply came")

    def _take_events(self, events: list[StreamEvent]) -> Iterator[ReplyDelta]:
        for name, lines in events:
            if self.done or name in _PINGS:
                continue
            data = lines[0] if len(lines) == 1 else "\n".join(lines)
            if name == "error":
                raise _event_error(data)
            for payload, source in _payloads(data, lines):
                if payload is None:
                    self.done = True
                    break
                delta = self._take(payload, source)
                if delta.text or delta.reasoning:
                    yield delta

    def _take(self, payload: dict[str, Any], source: str) -> ReplyDelta:
        """Take one chunk, or a whole body like a chunk."""
        if error := find_error(payload):
            raise error
        self._usage.add(payload.get("usage"))
        for name in ("model", "id"):
            value = payload.get(name)
            if isinstance(value, str) and value and not getattr(self, f"_{name}"):
                setattr(self, f"_{name}", sanitize_text(value)[:200])
        choice = _first(payload.get("choices"))
        if choice is None:
            return ReplyDelta("", "")
        self._usage.add(choice.get("usage"))
        if choice.get("error"):
            raise find_error(choice) or ProviderError("the provider answered with an error")
        delta = self._take_message(choice, source)
        self._take_finish(choice.get("finish_reason"))
        return delta

    def _take_message(self, choice: Mapping[str, Any], source: str) -> ReplyDelta:
        whole = not isinstance(choice.get("delta"), dict)
        message = choice.get("message") if whole else choice["delta"]
        if not isinstance(message, dict):
            self._seen = self._seen or bool(choice.get("finish_reason"))
            return ReplyDelta("", "")
        if whole and self._seen:  # some streams end with the whole message once more
            message = {} if len(self._calls) else {"tool_calls": message.get("tool_calls")}
        self._seen = True
        text, reasoning, refusal = _parts(message.get("content"))
        reasoning += _reasoning(message)
        if isinstance(message.get("refusal"), str):
            refusal += message["refusal"]
        if calls := message.get("tool_calls"):
            _refuse_duplicate_keys(calls, source)
            self._calls.add(calls, whole=whole)
        if call := message.get("function_call"):
            self._legacy_call.add(call)
        delta = ReplyDelta(self._text.add(text) if text else "", self._reasoning.add(reasoning) if reasoning else "")
        if refusal:
            self._refusal.add(refusal)
        if self._characters() > MAX_CHARACTERS:
            raise ReplyUnreadable("the reply is too long")
        return delta

    def _characters(self) -> int:
        counted = (self._text, self._reasoning, self._refusal, self._calls, self._legacy_call)
        return sum(each.characters for each in counted)

    def _take_finish(self, reason: Any) -> None:
        if not isinstance(reason, str) or reason in ("", "null", "None"):
            return
        if reason.lower() in FAILED:
            raise ProviderError(f"the reply ended with {reason}", code=reason[:100])
        if self._finish is None or self._finish.lower() in COMPLETE:
            self._finish = sanitize_text(reason)[:100]

    def _reply(self) -> ProviderReply:
        assembler = self._calls if len(self._calls) else self._legacy_call
        calls: tuple[ProviderCall, ...] = ()
        cut = 0
        if self._finish is None or self._finish.lower() in COMPLETE:
            calls = tuple(assembler.finish(complete=self._finish is not None))
        else:
            cut = len(assembler)
        return ProviderReply(
            text=self._text.text,
            reasoning=self._reasoning.text,
            refusal=self._refusal.text,
            calls=calls,
            cut_calls=cut,
            usage=self._usage.total(),
            finish_reason=self._finish,
            model=self._model,
            id=self._id,
        )


def _join(deltas: Iterator[ReplyDelta]) -> Iterator[ReplyDelta]:
    """Join the deltas of one read.

    What follows costs as much for one token as for twenty.
    """
    text = reasoning = ""
    failure: ProviderError | None = None
    try:
        for delta in deltas:
            if text and delta.reasoning:  # which comes after the text
                yield ReplyDelta(text, reasoning)
                text = reasoning = ""
            text += delta.text
            reasoning += delta.reasoning
    except ProviderError as error:
        failure = error
    if text or reasoning:
        yield ReplyDelta(text, reasoning)
    if failure:
        raise failure


def _payloads(data: str, lines: tuple[str, ...]) -> list[tuple[dict[str, Any] | None, str]]:
    """Return the JSON objects of one event with their text; None stands for `[DONE]`."""
    stripped = data.strip()
    if not stripped:
        return []
    if stripped == "[DONE]":
        return [(None, "")]
    try:
        payload = json.loads(data)
    except (ValueError, RecursionError):
        if len(lines) > 1:  # events that were not parted by an empty line
            return [each for line in lines for each in _payloads(line, (line,))]
        raise ReplyUnreadable(_excerpt(data)) from None
    if isinstance(payload, list) and payload:
        payload = payload[0]
    if payload is None or payload == []:
        return []
    if not isinstance(payload, dict):
        raise ReplyUnreadable(_excerpt(data))
    return [(payload, data)]


def _event_error(data: str) -> ProviderError:
    payload = load_object(data)
    if payload is None:
        return ProviderError(sanitize_text(data) or "the provider sent an error event")
    return find_error(payload if payload.get("error") else {"error": payload or "error"}) or ProviderError(data)


def _first(choices: Any) -> dict[str, Any] | None:
    """Return the choice with index 0; others were not requested."""
    if choices is None:
        return None
    if not isinstance(choices, list):
        raise ReplyUnreadable("choices that are no list")
    for choice in choices:
        if isinstance(choice, dict) and choice.get("index") in (None, 0, "0"):
            return choice
    return None


def _reasoning(message: Mapping[str, Any]) -> str:
    for name in ("reasoning_content", "reasoning", "thinking"):
        value = message.get(name)
        if value and isinstance(value, (str, list, dict)):
            return value if isinstance(value, str) else _inner(value)
    return ""


def _parts(content: Any) -> tuple[str, str, str]:
    """Return text, thinking and refusal of a message's content."""
    if isinstance(content, str):
        return content, "", ""
    if content is None:
        return "", "", ""
    text, reasoning, refusal = "", "", ""
    for part in content if isinstance(content, list) else [content]:
        if part is None:
            continue
        if isinstance(part, str):
            text += part
        elif not isinstance(part, dict):
            raise ReplyUnreadable("content that is no text")
        elif part.get("type") in ("thinking", "reasoning", "reasoning_content", "redacted_thinking"):
            reasoning += _inner(part)
        elif part.get("type") == "refusal":
            refusal += _inner(part)
        elif part.get("type") in (None, "text", "output_text"):
            text += _inner(part)
    return text, reasoning, refusal


def _inner(part: Any, depth: int = 0) -> str:
    """Return the text in a part; its thinking may be a list of parts."""
    if isinstance(part, str):
        return part
    if depth > 4:  # noqa: PLR2004  (no provider nests deeper)
        return ""
    if isinstance(part, list):
        return "".join(_inner(each, depth + 1) for each in part)
    if isinstance(part, dict):
        for name in ("text", "thinking", "reasoning", "refusal", "content", "value"):
            if part.get(name):
                return _inner(part[name], depth + 1)
    return ""


def _refuse_duplicate_keys(calls: Any, source: str) -> None:
    """Reject a reply with equal keys in arguments that were sent as an object."""
    items = calls if isinstance(calls, list) else [calls]
    functions = [item.get("function", item) for item in items if isinstance(item, dict)]
    if any(isinstance(each, dict) and isinstance(each.get("arguments"), (dict, list)) for each in functions):
        try:
            json.loads(source, object_pairs_hook=unique_keys)
        except InvalidArguments:
            raise ReplyUnreadable("a key comes twice in an object of arguments") from None


def _excerpt(body: str) -> str:
    start = body[:200].strip()
    return f"no reply: {start}" if start else "the body is empty"


_MAX_TOKENS = 10**12


class UsageReader:
    """Collects token counts: the last total of each kind, never a sum."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def add(self, usage: Any) -> None:
        """Take one usage object; ignore what is no count."""
        if not isinstance(usage, dict):
            return
        details_in = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
        details_out = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
        cached = details_in.get("cached_tokens") if isinstance(details_in, dict) else None
        thought = details_out.get("reasoning_tokens") if isinstance(details_out, dict) else None
        self._keep("input", usage.get("prompt_tokens"), usage.get("input_tokens"))
        self._keep("output", usage.get("completion_tokens"), usage.get("output_tokens"))
        self._keep("total", usage.get("total_tokens"))
        self._keep("cached", cached, usage.get("prompt_cache_hit_tokens"), usage.get("cached_tokens"))
        self._keep("thought", thought)

    def total(self) -> UsageMetadata | None:
        """Return the usage of the reply, or None where the provider sent none."""
        last = self._last
        if "input" not in last and "output" not in last:
            return None
        known = last.get("input", last.get("output", 0))
        rest = max(last.get("total", known) - known, 0)
        read, written = last.get("input", rest), last.get("output", rest)
        made = UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
        if "cached" in last:
            made["input_token_details"] = InputTokenDetails(cache_read=last["cached"])
        if "thought" in last:
            made["output_token_details"] = OutputTokenDetails(reasoning=last["thought"])
        return made

    def _keep(self, name: str, *values: Any) -> None:
        for value in values:
            if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _MAX_TOKENS:
                self._last[name] = int(value)
                return


class TextJoiner:
    """Joins text that comes in pieces to valid Unicode, also halves of an emoji."""

    __slots__ = ("_held", "_pieces", "characters")

    def __init__(self) -> None:
        self._held = ""
        self._pieces: list[str] = []
        self.characters = 0

    def add(self, piece: str) -> str:
        """Take a piece and return the text that is complete now."""
        if self._held:
            piece, self._held = self._held + piece, ""
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            piece, self._held = piece[:-1], piece[-1]
        piece = sanitize_text(piece)
        self.characters += len(piece)
        self._pieces.append(piece)
        return piece

    def flush(self) -> str:
        """Return the text that was held back, made valid."""
        if not self._held:
            return ""
        self._held = ""
        self._pieces.append(REPLACEMENT)
        return REPLACEMENT

    @property
    def text(self) -> str:
        return "".join(self._pieces)
