"""Reads and checks a model's reply, whole or streamed, of any provider.

The reader takes the message, or the chunks of a stream, and returns what may be shown. Tool calls come with the last
piece, once the reply is known to be complete: a reply that was cut off, filtered or broken makes no calls.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeGuard

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.messages.tool import ToolCallChunk, invalid_tool_call, tool_call, tool_call_chunk

from serve_app.llm.error_translation import INCOMPLETE, UNREADABLE, ModelIncomplete, ModelUnreadable
from serve_app.llm.openai_compatible.tool_calls import InvalidArguments, read_arguments, write_arguments
from serve_app.llm.provider_messages import (
    CUT_CALLS,
    ESTIMATED,
    FINISH,
    REASONING,
    RETRACTED,
    THINKING,
    TRUNCATED,
    new_call_id,
)
from serve_app.llm.reply_text import TextReader
from serve_app.llm.telemetry import estimate_tokens
from serve_app.values import make_tool_name
from serve_app.values.sanitize import sanitize_json, sanitize_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from langchain_core.messages import BaseMessage

    from serve_app.llm.reply_text import Part
    from serve_app.llm.text_calls import TextCall
    from serve_app.values import FinishReason


logger = logging.getLogger(__name__)

UNKNOWN_TOOL = "unknown_tool"
"""Replaces a name without one legal character."""
MAX_CALLS = 128
"""Of one reply; more would only fill the run's event log."""
MAX_ARGUMENT_CHARACTERS = 1_000_000
NO_ARGUMENTS = '""'
"""Replaces the arguments of a call that came without any."""

_PREFIX = re.compile(r"^(?:functions?|tools?|default_api)[.:/]")


@dataclass(slots=True)
class _PartialCall:
    """A tool call from the pieces so far."""

    name: str
    pieces: list[str]
    id: str = ""
    index: int | str | None = None

    def continues_with(self, piece: ToolCallChunk) -> bool:
        """Return whether a piece belongs to this call: same index, no other id."""
        is_another = self.id and piece["id"] and piece["id"] != self.id
        return piece["index"] is not None and piece["index"] == self.index and not is_another


class _ReplyEnd(NamedTuple):
    """What is known of a reply at its end."""

    text: str
    """The text that was held until now."""
    thinking: str
    metadata: dict[str, Any]
    calls: list[ToolCallChunk]
    missing_usage: UsageMetadata | None
    """An estimate of the tokens that the provider did not count."""


@dataclass(slots=True)
class ReplyReader:
    """Reads one reply to `conversation`, of a model that may call `tools`."""

    conversation: Sequence[BaseMessage]
    tools: frozenset[str]
    holds_text: bool = False
    """See `TextReader`."""
    wants_reason: bool = False
    """Whether a reply without a finish reason has broken off."""
    argumentless: frozenset[str] = frozenset()
    """The tools that take no arguments."""
    last_text: str = field(default="", init=False)
    """The text that came with the end of the reply."""
    _text: TextReader = field(init=False)
    _metadata: dict[str, Any] = field(default_factory=dict)
    _refusal: str = ""
    _calls: list[_PartialCall] = field(default_factory=list)
    _counted: UsageMetadata | None = None
    """The token counts of the provider."""
    _reasoned: int = 0

    def __post_init__(self) -> None:
        self._text = TextReader(self._is_call, self.holds_text)

    @property
    def is_empty(self) -> bool:
        """Whether the whole reply has neither text nor calls."""
        return not self._text.answer.strip() and not self._calls and not self._text.calls

    @property
    def has_reason(self) -> bool:
        """Whether the finish reason says that the model was done."""
        return classify_finish(self._metadata) == "stop"

    @property
    def lone_end(self) -> bool:
        """Whether an end of thinking came without a beginning."""
        return self._text.lone_end

    def read(self, message: AIMessage) -> AIMessage:
        """Take a whole message; return the reply that `feed` and `finish` would make.

        Raises:
            ModelIncomplete: the reply broke off.
            ModelUnreadable: the reply has more calls than is sensible.
        """
        content, more, _ = self._take(message)
        end = self._end()
        if RETRACTED in end.metadata:
            content = ""
        if end.thinking:
            more[THINKING] = more.get(THINKING, "") + end.thinking
        calls = [(call, _parse_arguments(call["args"])) for call in end.calls]
        usage = message.usage_metadata
        if end.missing_usage:
            usage = add_usage(usage, end.missing_usage)
        return AIMessage(
            content=_append_text(content, end.text),
            additional_kwargs=more,
            response_metadata=end.metadata,
            tool_calls=[
                tool_call(name=call["name"] or "", args=arguments, id=call["id"])
                for call, arguments in calls
                if arguments is not None
            ],
            invalid_tool_calls=[
                invalid_tool_call(name=call["name"], args=call["args"], id=call["id"], error=None)
                for call, arguments in calls
                if arguments is None
            ],
            usage_metadata=usage,
            id=message.id,
        )

    def feed(self, message: AIMessage) -> AIMessageChunk:
        """Take a message or a chunk; return its text and thinking, without calls.

        A chunk that has nothing else is returned as it is: to make another takes as long as to read it.
        """
        content, more, retracted = self._take(message)
        is_unchanged = (content, more) == (message.content, message.additional_kwargs) and not retracted
        if is_unchanged and (content or more) and _has_only_text(message):
            return message
        return AIMessageChunk(
            content=content,
            additional_kwargs=more,
            response_metadata={RETRACTED: True} if retracted else {},
            usage_metadata=message.usage_metadata,
            id=message.id,
        )

    def finish(self) -> AIMessageChunk:
        """End the reply; return its last piece, with the tool calls.

        Raises:
            ModelIncomplete: the reply broke off.
            ModelUnreadable: the reply has more calls than is sensible.
        """
        end = self._end()
        return AIMessageChunk(
            content=end.text,
            additional_kwargs={THINKING: end.thinking} if end.thinking else {},
            response_metadata=end.metadata,
            usage_metadata=end.missing_usage,
            tool_call_chunks=end.calls,
            chunk_position="last",
        )

    def _take(self, message: AIMessage) -> tuple[Any, dict[str, Any], bool]:
        """Return three parts of a message.

        They are its content without thinking and calls, its other fields, and whether earlier text was thinking.
        """
        self._collect(message)
        more = {name: each for name, each in message.additional_kwargs.items() if name in {REASONING, "audio"} and each}
        if REASONING in more:
            more[REASONING] = sanitize_text(str(more[REASONING]))
            self._reasoned += len(more[REASONING])
        content, thinking, retracted = self._content(message)
        if thinking:
            more[THINKING] = thinking
        return content, more, retracted

    def _end(self) -> _ReplyEnd:
        """End the reply.

        Raises:
            ModelIncomplete: the reply broke off.
            ModelUnreadable: the reply has more calls than is sensible.
        """
        text, thinking, retracted = _join_parts(self._text.finish())
        finish = classify_finish(self._metadata)
        if finish == "broken" or (finish == "absent" and self.wants_reason):
            raise ModelIncomplete(INCOMPLETE)
        has_reason = finish != "absent"
        finish = finish if has_reason else "stop"
        calls = self._calls or [_PartialCall(call.name, [_json(call.arguments)]) for call in self._text.calls]
        if len(calls) > MAX_CALLS:
            raise ModelUnreadable(UNREADABLE)
        marks: dict[str, Any] = {FINISH: "stop" if finish == "unknown" else finish}
        if self._refusal and not calls and not self._text.answer.strip():
            text, marks[FINISH] = sanitize_text(self._refusal), "content_filter"
        elif finish in {"length", "content_filter"} and self._text.answer.strip():
            marks[TRUNCATED] = True
        if calls and finish != "stop":
            logger.warning("tool_calls_not_made", extra={"finish": finish, "calls": len(calls)})
            marks[CUT_CALLS] = len(calls)
        elif self._metadata.get("cut_calls"):
            marks[CUT_CALLS] = self._metadata["cut_calls"]
        made = (
            [self._finish_call(call, place, has_reason=has_reason) for place, call in enumerate(calls)]
            if finish == "stop"
            else []
        )
        missing = self._estimate_missing(made)
        if missing:
            marks[ESTIMATED] = True
        if retracted:
            marks[RETRACTED] = True
        metadata = {str(name): sanitize_json(each) for name, each in self._metadata.items()}
        self.last_text = text
        return _ReplyEnd(text, thinking, {**metadata, **marks}, made, missing)

    def _collect(self, message: AIMessage) -> None:
        """Collect metadata, token counts and pieces of calls, for `finish`."""
        if message.response_metadata:
            self._metadata.update({name: each for name, each in message.response_metadata.items() if each})
        if message.usage_metadata:
            self._counted = add_usage(self._counted, message.usage_metadata)
        refusal = message.additional_kwargs.get("refusal")
        self._refusal += refusal if isinstance(refusal, str) else ""
        if isinstance(message, AIMessageChunk):
            for piece in message.tool_call_chunks:
                self._add_piece(piece)
            return
        for call in message.tool_calls:
            self._calls.append(_PartialCall(call["name"], [_json(call["args"]) if call["args"] else ""]))
        for invalid in message.invalid_tool_calls:
            self._calls.append(_PartialCall(invalid["name"] or "", [str(invalid["args"] or NO_ARGUMENTS)]))

    def _add_piece(self, piece: ToolCallChunk) -> None:
        """Add a piece of a stream to its call, or begin a call with it.

        Adding LangChain's chunks would parse the arguments at each sum: the cost grows with the square of their length.
        """
        name, arguments = piece["name"] or "", piece["args"] or ""
        call = next((call for call in self._calls if call.continues_with(piece)), None)
        if call:
            call.name += "" if name == call.name else name
            call.id = call.id or piece["id"] or ""
            call.pieces.append(arguments)
        elif len(self._calls) <= MAX_CALLS:
            self._calls.append(_PartialCall(name, [arguments], piece["id"] or "", piece["index"]))

    def _finish_call(self, call: _PartialCall, place: int, *, has_reason: bool) -> ToolCallChunk:
        """Return the call with a known name, a new id, and arguments as JSON.

        Invalid arguments become a JSON string. Empty arguments count as `{}` only if the reply has a finish reason.
        """
        name, written = self.match_tool(call.name), "".join(call.pieces).strip()
        nothing = "{}" if has_reason or name in self.argumentless else NO_ARGUMENTS
        return tool_call_chunk(
            name=name, args=_strict_json(written) if written else nothing, id=new_call_id(), index=place
        )

    def match_tool(self, name: str) -> str:
        """Return the tool that a name means, or a legal name if there is none."""
        if name in self.tools:
            return name
        bare = _PREFIX.sub("", name.strip())
        folded = _fold(bare)
        same = [each for each in self.tools if _fold(each) == folded]
        return same[0] if len(same) == 1 else make_tool_name(bare) if bare else UNKNOWN_TOOL

    def _content(self, message: AIMessage) -> tuple[Any, str, bool]:
        """Return the content without thinking and calls; the thinking; whether earlier text was thinking."""
        if isinstance(message.content, str):
            return _join_parts(self._text.feed(sanitize_text(message.content))) if message.content else ("", "", False)
        blocks: list[Any] = []
        thinking, retracted = "", False
        for block in message.content:
            written = block if isinstance(block, str) else block.get("text") if block.get("type") == "text" else None
            if not isinstance(written, str):
                blocks.append(sanitize_json(block))
                continue
            text, thought, lone = _join_parts(self._text.feed(sanitize_text(written)))
            thinking, retracted = thinking + thought, retracted or lone
            if text:
                blocks.append(text if isinstance(block, str) else {**block, "text": text})
        return blocks, thinking, retracted

    def _estimate_missing(self, made: list[ToolCallChunk]) -> UsageMetadata | None:
        """Estimate the tokens if the provider did not count its input; else return None."""
        if self._counted and self._counted["input_tokens"]:
            return None
        read = sum(estimate_tokens(message.text) for message in self.conversation)
        calls = sum(len(call["args"] or "") for call in made)
        counted = self._counted is not None and self._counted["output_tokens"]
        written = 0 if counted else estimate_tokens(self._text.answer) + (calls + self._reasoned) // 4
        return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)

    def _is_call(self, call: TextCall) -> bool:
        """Return whether a call in the text is of a known tool, and no quotation."""
        written = call.written.strip()
        quoted = any(written in message.text for message in self.conversation if message.type != "ai")
        return self.match_tool(call.name) in self.tools and not quoted


def tool_names(tools: Iterable[Any]) -> frozenset[str]:
    """Return the names of tools in any provider's form, where they have one."""
    return frozenset(name for name, _ in _names_and_schemas(tools))


def argumentless_tools(tools: Iterable[Any]) -> frozenset[str]:
    """Return the names of the tools whose schema has no arguments."""
    return frozenset(
        name for name, schema in _names_and_schemas(tools) if schema is not None and not _has_properties(schema)
    )


def _names_and_schemas(tools: Iterable[Any]) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yield name and schema of tools; of objects only the name."""
    for tool in tools:
        schema = None
        if isinstance(tool, dict):
            inner = tool.get("function")
            function = inner if isinstance(inner, dict) else tool
            name, schema = function.get("name"), function.get("parameters", function.get("input_schema"))
        else:
            name = getattr(tool, "name", None) or getattr(tool, "__name__", None)
        if isinstance(name, str):
            yield name, schema if isinstance(schema, dict) else None


def _has_properties(schema: dict[str, Any]) -> bool:
    return bool(schema.get("properties") or schema.get("additionalProperties"))


def read_finish_reason(message: AIMessage) -> FinishReason:
    """Return why a reply that was read ended."""
    reason: FinishReason = message.response_metadata.get(FINISH, "stop")
    return reason


def _join_parts(parts: Sequence[Part]) -> tuple[str, str, bool]:
    """Join parts: the text since the last retraction, the thinking, whether there was a retraction."""
    text, thinking, retracted = "", "", False
    for part in parts:
        if part.kind == "text":
            text += part.text
        elif part.kind == "thinking":
            thinking += part.text
        else:
            text, retracted = "", True
    return text, thinking, retracted


def _has_only_text(message: AIMessage) -> TypeGuard[AIMessageChunk]:
    """Whether a message is a chunk with nothing but text and thinking."""
    if not isinstance(message, AIMessageChunk):
        return False
    calls = message.tool_call_chunks or message.tool_calls or message.invalid_tool_calls
    return not (calls or message.response_metadata or message.chunk_position)


def _append_text(content: Any, text: str) -> Any:
    """Return the content with a text behind it."""
    if not text:
        return content
    return content + text if isinstance(content, str) else [*content, text]


def _parse_arguments(written: str | None) -> dict[str, Any] | None:
    """Return the arguments of a finished call.

    Returns None where they are a JSON string, which no call takes.
    """
    arguments = json.loads(written or "{}")
    return arguments if isinstance(arguments, dict) else None


def _json(arguments: dict[str, Any]) -> str:
    """Return arguments as JSON; as `str` of them where JSON has no form for them."""
    try:
        return write_arguments(arguments)
    except InvalidArguments:
        return str(arguments)


def _strict_json(written: str) -> str:
    """Return a whole JSON object; anything else as a JSON string, which no call takes.

    LangChain completes JSON that breaks off: a call would get arguments that the model did not send.
    """
    try:
        if len(written) <= MAX_ARGUMENT_CHARACTERS:
            return read_arguments(written)
    except InvalidArguments:
        pass
    return json.dumps(sanitize_text(written[:MAX_ARGUMENT_CHARACTERS]))


def _fold(name: str) -> str:
    return re.sub(r"[\s_.-]+", "_", name.strip()).strip("_").casefold()


FinishKind = Literal["stop", "length", "content_filter", "broken", "unknown", "absent"]

_NAMES: dict[FinishKind, str] = {
    "stop": "stop end_turn stop_sequence stop_token eos eos_token complete completed end done tool_calls tool_call "
    "tool_use function_call pause_turn",
    "length": "length max_tokens max_output_tokens model_length token_limit incomplete model_context_window_exceeded",
    "content_filter": "content_filter content_filtered sensitive safety recitation blocklist prohibited_content spii "
    "refusal guardrail_intervened image_safety",
    "broken": "error network_error malformed_function_call malformed_model_output malformed_tool_use abort aborted "
    "unexpected_tool_call insufficient_system_resource cancelled canceled timeout other load repetition_truncation",
}
_FINISH = {name: finish for finish, names in _NAMES.items() for name in names.split()}
_FIELDS = ("finish_reason", "stop_reason", "stopReason", "done_reason")


def classify_finish(metadata: Mapping[str, Any]) -> FinishKind:
    """Classify the finish reason in `response_metadata`; `absent` where it has none."""
    reason = next((metadata[name] for name in _FIELDS if metadata.get(name)), None)
    if reason is None:
        return "absent"
    reason = str(reason).rpartition(".")[2].lower()  # an enum's name, as FinishReason.STOP
    return _FINISH.get(reason, "unknown")
