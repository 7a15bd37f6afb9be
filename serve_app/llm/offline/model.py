"""LangChain's interface of the offline model: replies, streams and token counts."""

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
from serve_app.llm.offline.dialog import read_turns
from serve_app.llm.offline.relay import relay_results
from serve_app.llm.offline.schema import read_tools
from serve_app.llm.telemetry import estimate_tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import Runnable
    from langchain_core.tools import BaseTool

    from serve_app.llm.offline.dialog import PlannedCall

NAME = "offline"
PIECE_CHARACTERS = 32
MOST_PIECES = 40
"""Of one paragraph: each piece costs its reader more than the characters in it."""

_METADATA = {"model_name": NAME}


class OfflineModel(BaseChatModel):
    """Answers by fixed rules; the system prompt changes nothing."""

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
        pieces = []
        for paragraph in paragraphs:
            for piece in _pieces(paragraph):
                pieces.append(piece)
                chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
                if run_manager:
                    await run_manager.on_llm_new_token(piece, chunk=chunk)
                yield chunk
                await asyncio.sleep(0)  # the piece is sent before the next one is made
        chunks = [
            tool_call_chunk(
                name=call.name, args=json.dumps(call.arguments, ensure_ascii=False), id=_id(index), index=index
            )
            for index, call in enumerate(calls)
        ]
        last = AIMessageChunk(
            content="",
            tool_call_chunks=chunks,
            usage_metadata=_usage(messages, "".join(pieces), calls),
            response_metadata=dict(_METADATA),
            chunk_position="last",
        )
        yield ChatGenerationChunk(message=last)


def _answer(messages: list[BaseMessage], bound: Sequence[dict[str, Any]]) -> tuple[list[PlannedCall], Iterator[str]]:
    """Returns the calls, or the paragraphs of the answer once the tools have returned."""
    turns = read_turns(messages)
    tools = read_tools(bound)
    if turns[-1].results:
        return [], relay_results(turns[-1], tools)
    decision = decide(turns, tools)
    return ([], iter([decision])) if isinstance(decision, str) else (decision, iter(()))


def _pieces(paragraph: str) -> Iterator[str]:
    size = max(PIECE_CHARACTERS, math.ceil(len(paragraph) / MOST_PIECES))
    return (match.group() for match in re.finditer(rf"(?s).{{1,{size}}}(?!\w)|.{{1,{size}}}", paragraph))


def _id(index: int) -> str:
    """Returns an id that is unique within one reply."""
    return f"call_{index}"


def _usage(messages: list[BaseMessage], text: str, calls: list[PlannedCall]) -> UsageMetadata:
    read = sum(estimate_tokens(message.text) for message in messages)
    written = estimate_tokens(text) + sum(
        estimate_tokens(json.dumps(call.arguments, ensure_ascii=False)) for call in calls
    )
    return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
