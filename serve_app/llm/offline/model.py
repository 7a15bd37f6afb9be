"""LangChain's interface of the offline model: replies, streams and token counts."""

from __future__ import annotations

import asyncio
import json
import math
import re
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool

from serve_app.llm.offline.answer import write_answer
from serve_app.llm.offline.call_choice import CallResult, ChatTurn, PlannedCall, choose_calls
from serve_app.llm.offline.phrases import normalize_message
from serve_app.llm.offline.schema import read_tools
from serve_app.llm.telemetry import estimate_tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import Runnable
    from langchain_core.tools import BaseTool

NAME = "offline"
PIECE_CHARACTERS = 32
MOST_PIECES = 40
"""Of one answer: each piece costs its reader more than the characters in it."""


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
        return ChatResult(generations=[ChatGeneration(message=_reply(messages, kwargs.get("tools") or ()))])

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
        reply = _reply(messages, kwargs.get("tools") or ())
        for piece in _pieces(reply.text):
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
            if run_manager:
                await run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk
            await asyncio.sleep(0)  # the piece is sent before the next one is made
        last = AIMessageChunk(
            content="",
            tool_call_chunks=[
                tool_call_chunk(
                    name=call["name"], args=json.dumps(call["args"], ensure_ascii=False), id=call["id"], index=index
                )
                for index, call in enumerate(reply.tool_calls)
            ],
            usage_metadata=reply.usage_metadata,
            response_metadata=reply.response_metadata,
            chunk_position="last",
        )
        yield ChatGenerationChunk(message=last)


def _reply(messages: list[BaseMessage], bound: Sequence[dict[str, Any]]) -> AIMessage:
    """Return the calls, or the answer once the tools have returned."""
    turns = _read_turns(messages)
    tools = read_tools(bound)
    choice = write_answer(turns[-1], tools) if turns[-1].results else choose_calls(turns, tools)
    text, calls = (choice, []) if isinstance(choice, str) else ("", choice)
    return AIMessage(
        content=text,
        tool_calls=[
            tool_call(name=call.name, args=call.arguments, id=f"call_{index}") for index, call in enumerate(calls)
        ],
        usage_metadata=_usage(messages, text, calls),
        response_metadata={"model_name": NAME},
    )


def _read_turns(messages: Sequence[BaseMessage]) -> list[ChatTurn]:
    """Return the turns of a conversation; the last one is to be answered."""
    turns: list[ChatTurn] = []
    waiting: list[tuple[str | None, PlannedCall]] = []
    for message in messages:
        if isinstance(message, HumanMessage):
            turns.append(ChatTurn(normalize_message(message.text)))
            waiting = []
        elif isinstance(message, AIMessage) and turns:
            waiting = [(each["id"], PlannedCall(each["name"], each["args"])) for each in message.tool_calls]
            turns[-1].calls += [call for _, call in waiting]
            turns[-1].answer = message.text
        elif isinstance(message, ToolMessage) and turns:
            found = next((each for each in waiting if each[0] == message.tool_call_id), None)
            if found:
                waiting.remove(found)  # providers may repeat ids
            turns[-1].results.append(CallResult(found and found[1], message.text, message.status == "error"))
    return turns or [ChatTurn("")]


def _pieces(text: str) -> Iterator[str]:
    size = max(PIECE_CHARACTERS, math.ceil(len(text) / MOST_PIECES))
    return (match.group() for match in re.finditer(rf"(?s).{{1,{size}}}(?!\w)|.{{1,{size}}}", text))


def _usage(messages: list[BaseMessage], text: str, calls: list[PlannedCall]) -> UsageMetadata:
    read = sum(estimate_tokens(message.text) for message in messages)
    written = estimate_tokens(text) + sum(
        estimate_tokens(json.dumps(call.arguments, ensure_ascii=False)) for call in calls
    )
    return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
