"""Checks a model's reply, whichever provider and whichever way of asking it came by.

The reader is fed the message, or the chunks of a stream, and passes on what may be shown. Tool calls come with the last
piece, once the reply is known to be complete: a reply that was cut off, filtered or broken makes none.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk

from serve_app.llm.error_translation import INCOMPLETE, UNREADABLE, ModelIncomplete, ModelUnreadable
from serve_app.llm.message_keys import CUT_CALLS, ESTIMATED, FINISH, REASONING, RETRACTED, THINKING, TRUNCATED
from serve_app.llm.openai_compatible.tool_calls import InvalidArguments, read_arguments, write_arguments
from serve_app.llm.provider_messages import new_call_id
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
"""In place of a name of which nothing legal is left."""
MAX_CALLS = 128
"""Of one reply: what is beyond is no reply of use, and would fill the run's log."""
MAX_ARGUMENT_CHARACTERS = 1_000_000
NO_ARGUMENTS = '""'
"""In place of a call's arguments that did not come."""

_PREFIX = re.compile(r"^(?:functions?|tools?|default_api)[.:/]")


@dataclass(slots=True)
class _Begun:
    """A call as far as its pieces have come."""

    name: str
    pieces: list[str]
    id: str = ""
    index: int | str | None = None

    def takes(self, piece: ToolCallChunk) -> bool:
        """Whether a piece of a stream is of this call: it has its index, and no other id."""
        is_another = self.id and piece["id"] and piece["id"] != self.id
        return piece["index"] is not None and piece["index"] == self.index and not is_another


@dataclass(slots=True)
class ReplyReader:
    """Reads one reply of a model that was offered `tools`, after `conversation`."""

    conversation: Sequence[BaseMessage]
    tools: frozenset[str]
    holds: bool = False
    """As of `TextReader`."""
    wants_reason: bool = False
    """Whether the provider gives a reason for the end of each reply, so that one without has broken off."""
    bare: frozenset[str] = frozenset()
    """The tools that take no arguments."""
    _text: TextReader = field(init=False)
    _metadata: dict[str, Any] = field(default_factory=dict)
    _refusal: str = ""
    _begun: list[_Begun] = field(default_factory=list)
    _counted: UsageMetadata | None = None
    """The tokens that the provider has counted."""
    _reasoned: int = 0

    def __post_init__(self) -> None:
        self._text = TextReader(self._is_call, self.holds)

    @property
    def is_empty(self) -> bool:
        """Whether the reply, once it is whole, says nothing and calls nothing."""
        return not self._text.answer.strip() and not self._begun and not self._text.calls

    @property
    def has_reason(self) -> bool:
        """Whether the provider said that the reply ended as its model wanted."""
        return classify_finish(self._metadata) == "stop"

    @property
    def lone_end(self) -> bool:
        """Whether the model's thinking ended without having begun."""
        return self._text.lone_end

    def feed(self, message: AIMessage) -> AIMessageChunk:
        """What may be shown of a message or a chunk: its text and its thinking, but no calls yet."""
        self._note(message)
        more = {name: each for name, each in message.additional_kwargs.items() if name in {REASONING, "audio"} and each}
        if REASONING in more:
            more[REASONING] = sanitize_text(str(more[REASONING]))
            self._reasoned += len(more[REASONING])
        content, thinking, retracted = self._content(message)
        if thinking:
            more[THINKING] = thinking
        marks = {RETRACTED: True} if retracted else {}
        return AIMessageChunk(
            content=content,
            additional_kwargs=more,
            response_metadata=marks,
            usage_metadata=message.usage_metadata,
            id=message.id,
        )

    def finish(self) -> AIMessageChunk:
        """The last piece, with the calls; the reply has ended.

        Raises:
            ModelIncomplete: the provider said that it broke off.
            ModelUnreadable: its parts cannot be put together, or it has a size that no reply of use has.
        """
        text, thinking, retracted = _joined(self._text.finish())
        finish = classify_finish(self._metadata)
        if finish == "broken" or (finish == "absent" and self.wants_reason):
            raise ModelIncomplete(INCOMPLETE)
        said_in_full = finish != "absent"
        finish = finish if said_in_full else "stop"
        calls = self._begun or [_Begun(call.name, [_json(call.arguments)]) for call in self._text.calls]
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
        made = [self._made(call, place, said_in_full) for place, call in enumerate(calls)] if finish == "stop" else []
        missing = self._uncounted(made)
        if missing:
            marks[ESTIMATED] = True
        if retracted:
            marks[RETRACTED] = True
        said = {str(name): sanitize_json(each) for name, each in self._metadata.items()}
        return AIMessageChunk(
            content=text,
            additional_kwargs={THINKING: thinking} if thinking else {},
            response_metadata={**said, **marks},
            usage_metadata=missing,
            tool_call_chunks=made,
            chunk_position="last",
        )

    def _note(self, message: AIMessage) -> None:
        """Take in what only counts once the reply is whole."""
        self._metadata.update({name: each for name, each in message.response_metadata.items() if each})
        if message.usage_metadata:
            self._counted = add_usage(self._counted, message.usage_metadata)
        refusal = message.additional_kwargs.get("refusal")
        self._refusal += refusal if isinstance(refusal, str) else ""
        if isinstance(message, AIMessageChunk):
            for piece in message.tool_call_chunks:
                self._take(piece)
            return
        for call in message.tool_calls:
            self._begun.append(_Begun(call["name"], [_json(call["args"]) if call["args"] else ""]))
        for invalid in message.invalid_tool_calls:
            self._begun.append(_Begun(invalid["name"] or "", [str(invalid["args"] or NO_ARGUMENTS)]))

    def _take(self, piece: ToolCallChunk) -> None:
        """Add a piece of a stream to its call, or begin one with it.

        LangChain's own adding up completes the JSON at each sum, at a cost of the square of its length.
        """
        name, arguments = piece["name"] or "", piece["args"] or ""
        call = next((call for call in self._begun if call.takes(piece)), None)
        if call:
            call.name += "" if name == call.name else name
            call.id = call.id or piece["id"] or ""
            call.pieces.append(arguments)
        elif len(self._begun) <= MAX_CALLS:
            self._begun.append(_Begun(name, [arguments], piece["id"] or "", piece["index"]))

    def _made(self, call: _Begun, place: int, said_in_full: bool) -> ToolCallChunk:  # noqa: FBT001 - both are of the reply
        """The call with a name and an id of ours, its arguments a JSON object, or a JSON string where they are none.

        Where nothing stands for the arguments, a call has none only if the provider has `said_in_full` what it had to.
        """
        name, written = self.known(call.name), "".join(call.pieces).strip()
        nothing = "{}" if said_in_full or name in self.bare else NO_ARGUMENTS
        return tool_call_chunk(name=name, args=_strict(written) if written else nothing, id=new_call_id(), index=place)

    def known(self, name: str) -> str:
        """The tool that a name means, mended a little; a name that every provider takes where there is none."""
        if name in self.tools:
            return name
        bare = _PREFIX.sub("", name.strip())
        folded = _folded(bare)
        same = [each for each in self.tools if _folded(each) == folded]
        return same[0] if len(same) == 1 else make_tool_name(bare) if bare else UNKNOWN_TOOL

    def _content(self, message: AIMessage) -> tuple[Any, str, bool]:
        """The content without thinking and calls; the thinking; whether the text before was thinking."""
        if isinstance(message.content, str):
            return _joined(self._text.feed(sanitize_text(message.content))) if message.content else ("", "", False)
        blocks: list[Any] = []
        thinking, retracted = "", False
        for block in message.content:
            written = block if isinstance(block, str) else block.get("text") if block.get("type") == "text" else None
            if not isinstance(written, str):
                blocks.append(sanitize_json(block))
                continue
            text, thought, lone = _joined(self._text.feed(sanitize_text(written)))
            thinking, retracted = thinking + thought, retracted or lone
            if text:
                blocks.append(text if isinstance(block, str) else {**block, "text": text})
        return blocks, thinking, retracted

    def _uncounted(self, made: list[ToolCallChunk]) -> UsageMetadata | None:
        """An estimate of the tokens that the provider has not counted; None where it has counted what it read."""
        if self._counted and self._counted["input_tokens"]:
            return None
        read = sum(estimate_tokens(message.text) for message in self.conversation)
        calls = sum(len(call["args"] or "") for call in made)
        counted = self._counted is not None and self._counted["output_tokens"]
        written = 0 if counted else estimate_tokens(self._text.answer) + (calls + self._reasoned) // 4
        return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)

    def _is_call(self, call: TextCall) -> bool:
        """Whether a call in the text is one: of a tool that was offered, and not quoted from what the model read."""
        written = call.written.strip()
        quoted = any(written in message.text for message in self.conversation if message.type != "ai")
        return self.known(call.name) in self.tools and not quoted


def tool_names(tools: Iterable[Any]) -> frozenset[str]:
    """The names of tools in any provider's form, as far as they can be told."""
    return frozenset(name for name, _ in _described(tools))


def argumentless_tools(tools: Iterable[Any]) -> frozenset[str]:
    """The names of those tools that take no arguments, as far as that can be told."""
    return frozenset(name for name, schema in _described(tools) if schema is not None and not _has_properties(schema))


def _described(tools: Iterable[Any]) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """The name and the schema of each tool; of OpenAI's and Anthropic's forms, and of objects the name alone."""
    for tool in tools:
        schema = None
        if isinstance(tool, dict):
            inner = tool.get("function")
            told = inner if isinstance(inner, dict) else tool
            name, schema = told.get("name"), told.get("parameters", told.get("input_schema"))
        else:
            name = getattr(tool, "name", None) or getattr(tool, "__name__", None)
        if isinstance(name, str):
            yield name, schema if isinstance(schema, dict) else None


def _has_properties(schema: dict[str, Any]) -> bool:
    return bool(schema.get("properties") or schema.get("additionalProperties"))


def read_finish_reason(message: AIMessage) -> FinishReason:
    """Why a reply that was read ended."""
    reason: FinishReason = message.response_metadata.get(FINISH, "stop")
    return reason


def _joined(parts: Sequence[Part]) -> tuple[str, str, bool]:
    """The text after the last retraction, the thinking, and whether the text of earlier pieces was thinking."""
    text, thinking, retracted = "", "", False
    for part in parts:
        if part.kind == "text":
            text += part.text
        elif part.kind == "thinking":
            thinking += part.text
        else:
            text, retracted = "", True
    return text, thinking, retracted


def _json(arguments: dict[str, Any]) -> str:
    """Arguments in JSON; as another text where JSON cannot say just the same."""
    try:
        return write_arguments(arguments)
    except InvalidArguments:
        return str(arguments)


def _strict(written: str) -> str:
    """Arguments that are a whole JSON object, in JSON; anything else as a JSON string, which is no call's arguments.

    LangChain completes what breaks off: with it a call would be made with arguments that the model did not send.
    """
    try:
        if len(written) <= MAX_ARGUMENT_CHARACTERS:
            return read_arguments(written)
    except InvalidArguments:
        pass
    return json.dumps(sanitize_text(written[:MAX_ARGUMENT_CHARACTERS]))


def _folded(name: str) -> str:
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
    """Why the reply ended, by its `response_metadata`; `absent` where that gives no reason."""
    given = next((metadata[name] for name in _FIELDS if metadata.get(name)), None)
    if given is None:
        return "absent"
    reason = str(given).rpartition(".")[2].lower()  # an enum's name, as FinishReason.STOP
    return _FINISH.get(reason, "unknown")
