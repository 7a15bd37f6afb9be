"""A chat model whose calls are bounded in time, translated in failure, and checked in reply."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.messages.utils import message_chunk_to_message
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import PrivateAttr

from serve_app.errors import DeadlineExceeded
from serve_app.llm.error_translation import NO_TOOLS, ModelUnreadable, ToolsRefused, translate_errors
from serve_app.llm.message_keys import CUT_CALLS, RETRACTED
from serve_app.llm.provider_messages import normalize_messages
from serve_app.llm.reply_reader import ReplyReader, argumentless_tools, read_finish_reason, tool_names
from serve_app.resilience.deadline import call_timeout_s, remaining_s
from serve_app.resilience.fault_injection import GARBAGE, inject_fault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence

    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.runnables import Runnable, RunnableBinding
    from langchain_core.tools import BaseTool

    from serve_app.values import Fault


NO_ANSWER = "The model gave no answer"
REASON_GIVERS = (
    "langchain_openai",
    "langchain_anthropic",
    "langchain_google",
    "langchain_mistralai",
    "langchain_groq",
    "langchain_deepseek",
    "langchain_ollama",
    "langchain_aws",
    "langchain_xai",
)
"""Packages whose providers give a reason for the end of every reply; others are known to once they gave one."""


class GuardedModel(BaseChatModel):
    """A chat model whose calls end in time, fail as the service's errors, and bring replies that were checked.

    A call that is given `deadline=` (Unix time in seconds) ends by then too; one that is given `nonempty=True` fails
    where the reply says nothing. The inner model is asked by the hooks that LangChain asks this one by, so that a call
    is one run in every trace.
    """

    inner: BaseChatModel
    timeout_s: float
    configured_name: str = ""
    """The name by which the configuration knows it."""
    _holds: bool = PrivateAttr(default=False)
    """Whether the model was seen to end its thinking without having begun it."""
    _gives_reasons: bool = PrivateAttr(default=False)
    """Whether the model was seen to give a reason for the end of a reply that ended well."""

    @property
    def _llm_type(self) -> str:
        return "guarded"

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """As the inner model binds them: each provider has its own form for tools.

        Raises:
            ToolsRefused: the inner model's class takes none.
        """
        chosen = {"tool_choice": tool_choice} if tool_choice else {}
        try:
            bound = cast("RunnableBinding[Any, Any]", self.inner.bind_tools(tools, **chosen, **kwargs))
        except NotImplementedError:  # by which LangChain's classes say so
            raise ToolsRefused(NO_TOOLS) from None
        return self.bind(**bound.kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError("a guarded model is asked asynchronously: a blocking call cannot be ended in time")

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        *,
        deadline: float | None = None,
        faults: tuple[Fault, ...] = (),
        **kwargs: Any,
    ) -> ChatResult:
        nonempty = kwargs.pop("nonempty", False)
        sent = normalize_messages(messages, self.configured_name)
        reader = self._reader(sent, kwargs)
        with _in_our_terms(deadline):
            async with asyncio.timeout(self._limit_s(deadline)):
                message: BaseMessage | None = await inject_model_fault(faults, self.configured_name)
                if message is None:
                    result = await self.inner._agenerate(sent, stop, run_manager, **kwargs)  # noqa: SLF001 - see the class
                    message = _with_info(result.generations[0])
            first, last = reader.feed(cast("AIMessage", message)), reader.finish()
        self._see_to(reader, last, nonempty=nonempty)
        if RETRACTED in last.response_metadata:
            first = first.model_copy(update={"content": ""})
        reply = message_chunk_to_message(first + last)
        return ChatResult(generations=[ChatGeneration(message=reply)])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002 - `astream` reports what this yields
        *,
        deadline: float | None = None,
        faults: tuple[Fault, ...] = (),
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        nonempty = kwargs.pop("nonempty", False)
        sent = normalize_messages(messages, self.configured_name)
        reader = self._reader(sent, kwargs)
        until = asyncio.get_running_loop().time() + self._limit_s(deadline)
        with _in_our_terms(deadline):
            chunks = self._chunks(sent, stop, faults, until, kwargs)
            async with aclosing(chunks):
                begun = False
                async for chunk in chunks:
                    begun = True
                    shown = reader.feed(chunk)
                    if shown.content or shown.additional_kwargs or shown.response_metadata or shown.usage_metadata:
                        yield ChatGenerationChunk(message=shown)
            if not begun:
                raise ModelUnreadable(NO_ANSWER)
            last = reader.finish()
        self._see_to(reader, last, nonempty=nonempty)
        yield ChatGenerationChunk(message=last)

    async def _chunks(
        self,
        sent: list[BaseMessage],
        stop: list[str] | None,
        faults: tuple[Fault, ...],
        until: float,
        kwargs: dict[str, Any],
    ) -> AsyncGenerator[AIMessageChunk, None]:
        """The chunks of the inner model, each of which is there by the loop's time `until`."""
        async with asyncio.timeout_at(until):
            malformed = await inject_model_fault(faults, self.configured_name)
        if malformed:
            yield malformed
            return
        stream = cast("AsyncGenerator[ChatGenerationChunk]", self.inner._astream(sent, stop, **kwargs))  # noqa: SLF001
        async with aclosing(stream):
            while (chunk := await _next(stream, until)) is not None:
                yield cast("AIMessageChunk", _with_info(chunk))

    def _reader(self, sent: list[BaseMessage], kwargs: dict[str, Any]) -> ReplyReader:
        packages = [each.__module__ for each in type(self.inner).__mro__]
        others = not packages[0].startswith("serve_app.")  # the project's own client looks for the reason itself
        known = any(package.startswith(REASON_GIVERS) for package in packages)
        wants_reason = others and (self._gives_reasons or known)
        tools = kwargs.get("tools", ())
        return ReplyReader(sent, tool_names(tools), self._holds, wants_reason, argumentless_tools(tools))

    def _see_to(self, reader: ReplyReader, last: AIMessageChunk, *, nonempty: bool) -> None:
        """Learn from a whole reply, and refuse one that says nothing where the caller wants something."""
        self._holds = self._holds or reader.lone_end
        self._gives_reasons = self._gives_reasons or reader.has_reason
        says_something = (
            last.content or CUT_CALLS in last.response_metadata or read_finish_reason(last) == "content_filter"
        )
        if nonempty and reader.is_empty and not says_something:
            raise ModelUnreadable(NO_ANSWER)

    def _limit_s(self, deadline: float | None) -> float:
        return self.timeout_s if deadline is None else call_timeout_s(deadline, self.timeout_s)


def _with_info(generation: ChatGeneration) -> BaseMessage:
    """The message with what LangChain's packages say of it beside it, such as why it ended."""
    message, info = generation.message, generation.generation_info
    if not info:
        return message
    return message.model_copy(update={"response_metadata": {**info, **message.response_metadata}})


async def _next(stream: AsyncGenerator[ChatGenerationChunk], until: float) -> ChatGenerationChunk | None:
    """The next chunk, waited for until the loop's time `until`; never while the reader has the last one."""
    async with asyncio.timeout_at(until):
        return await anext(stream, None)


@contextmanager
def _in_our_terms(deadline: float | None) -> Iterator[None]:
    with translate_errors():
        try:
            yield
        except TimeoutError:
            if deadline is not None and not remaining_s(deadline):
                raise DeadlineExceeded("The request's time ran out") from None
            raise


async def inject_model_fault(faults: tuple[Fault, ...], name: str) -> AIMessageChunk | None:
    """The malformed reply of the model `name`, where it is to give one in place of its own: a call of no tool.

    Raises:
        ConnectionError: the call is to fail.
    """
    if not await inject_fault(faults, f"model:{name}", ConnectionError("a fault set on purpose")):
        return None
    call = tool_call_chunk(name="", args=GARBAGE, id="call_garbage", index=0)
    return AIMessageChunk(content="", tool_call_chunks=[call], response_metadata={"finish_reason": "tool_calls"})
