"""Which chat model answers when there is no network?

A deterministic one of rules: it calls the bound tools that a message asks for by the tools' own schemas, and answers by
relaying what they return. It says that it is the offline model and never pretends to reason.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool

from serve_app.llm.offline.choose import decide
from serve_app.llm.offline.conversation import conversation_of
from serve_app.llm.offline.relay import relayed
from serve_app.llm.offline.schema import tools_of
from serve_app.llm.telemetry import estimate_tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import Runnable
    from langchain_core.tools import BaseTool

    from serve_app.llm.offline.conversation import Call

NAME = "offline"
PIECE_CHARACTERS = 32
MOST_PIECES = 40
"""Of one paragraph: each piece costs its reader more than the characters in it."""

_METADATA = {"model_name": NAME}


class OfflineModel(BaseChatModel):
    """Answers by rules; the system prompt is read by no rule."""

    @property
    def _llm_type(self) -> str:
        return NAME

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools to call; `tool_choice="none"` keeps it from calling any."""
        converted = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=[] if tool_choice == "none" else converted, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - an answer of rules ends by itself
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - nothing is streamed here
        **kwargs: Any,
    ) -> ChatResult:
        calls, pieces = _answer(messages, kwargs.get("tools") or ())
        text = "".join(pieces)
        message = AIMessage(
            content=text,
            tool_calls=[
                tool_call(name=call.name, args=call.arguments, id=_id(index)) for index, call in enumerate(calls)
            ],
            usage_metadata=_usage(messages, text, calls),
            response_metadata=dict(_METADATA),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002 - nothing is streamed here
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages, stop, **kwargs)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - an answer of rules ends by itself
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        calls, paragraphs = _answer(messages, kwargs.get("tools") or ())
        said = []
        for paragraph in paragraphs:
            for piece in _pieces(paragraph):
                said.append(piece)
                chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
                if run_manager:
                    await run_manager.on_llm_new_token(piece, chunk=chunk)
                yield chunk
                await asyncio.sleep(0)  # the piece is sent before the next one is made
        asked = [
            tool_call_chunk(
                name=call.name, args=json.dumps(call.arguments, ensure_ascii=False), id=_id(index), index=index
            )
            for index, call in enumerate(calls)
        ]
        last = AIMessageChunk(
            content="",
            tool_call_chunks=asked,
            usage_metadata=_usage(messages, "".join(said), calls),
            response_metadata=dict(_METADATA),
            chunk_position="last",
        )
        yield ChatGenerationChunk(message=last)


def _answer(messages: list[BaseMessage], bound: Sequence[dict[str, Any]]) -> tuple[list[Call], Iterator[str]]:
    """What to call, or the paragraphs to say; once a turn's tools have answered, no more is called."""
    conversation = conversation_of(messages)
    tools = tools_of(bound)
    if conversation.now.results:
        return [], relayed(conversation.now, tools)
    decision = decide(conversation, tools)
    return ([], iter([decision])) if isinstance(decision, str) else (decision, iter(()))


def _pieces(paragraph: str) -> Iterator[str]:
    size = max(PIECE_CHARACTERS, math.ceil(len(paragraph) / MOST_PIECES))
    return (match.group() for match in re.finditer(rf"(?s).{{1,{size}}}(?!\w)|.{{1,{size}}}", paragraph))


def _id(index: int) -> str:
    """Unique within the step, which is all that a reply's calls need, and the same for the same question."""
    return f"call_{index}"


def _usage(messages: list[BaseMessage], text: str, calls: list[Call]) -> UsageMetadata:
    read = sum(estimate_tokens(message.text) for message in messages)
    written = estimate_tokens(text) + sum(
        estimate_tokens(json.dumps(call.arguments, ensure_ascii=False)) for call in calls
    )
    return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
