"""Guards a chat model: time limit, error translation, checked replies, fault injection."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import PrivateAttr

from serve_app.errors import DeadlineExceeded
from serve_app.llm.error_translation import NO_TOOLS, ModelUnreadable, ToolsRefused, translate_errors
from serve_app.llm.provider_messages import CUT_CALLS, normalize_messages
from serve_app.llm.reply_reader import ReplyReader, argumentless_tools, read_finish_reason, tool_names
from serve_app.resilience.deadline import call_timeout_s, is_over
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
"""Packages whose providers give a finish reason in every reply; another counts as one after its first."""


class AsyncChatModel(BaseChatModel):
    """A chat model for asynchronous calls only: a blocking call has no time limit."""

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the model with these tools; `_tool_options` gives them their form."""
        options = {**({"tool_choice": tool_choice} if tool_choice else {}), **kwargs}
        return self.bind(**self._tool_options(list(tools), options))

    def _tool_options(self, tools: list[Any], options: dict[str, Any]) -> dict[str, Any]:
        """Return the options of a call with these tools, as they are."""
        return {"tools": tools, **options}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError("call this model asynchronously: a blocking call cannot be ended in time")


@dataclass(slots=True)
class _Habits:
    """What is known of a model's replies, and its latest tools.

    They are one private attribute, because pydantic takes a microsecond to read each.
    """

    checks_reason: bool
    """Whether the inner model is our own client, which checks the finish reason itself."""
    gives_reasons: bool
    """Whether the provider is known to give a finish reason, or a reply had one."""
    holds_text: bool = False
    """Whether a reply ended its thinking without having begun it."""
    latest_tools: tuple[Any, frozenset[str], frozenset[str]] = (None, frozenset(), frozenset())
    """The tools of the latest call, their names, and the names of those without arguments."""


class GuardedModel(AsyncChatModel):
    """A chat model with a time limit, translated errors and checked replies.

    Options of one call:
        deadline: Unix time in seconds by which the call ends too.
        nonempty: whether a reply without text and calls is a failure.
        faults: the faults that an operator injects.

    The inner model is called by LangChain's hooks (`_agenerate`, `_astream`), so that a call is one run in every trace.
    """

    inner: BaseChatModel
    timeout_s: float
    configured_name: str = ""
    """The model's name in the settings."""
    _habits: _Habits = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        modules = [each.__module__ for each in type(self.inner).__mro__]
        self._habits = _Habits(
            checks_reason=modules[0].startswith("serve_app."),
            gives_reasons=any(module.startswith(REASON_GIVERS) for module in modules),
        )

    @property
    def _llm_type(self) -> str:
        return "guarded"

    def _tool_options(self, tools: list[Any], options: dict[str, Any]) -> dict[str, Any]:
        """Return the options as the inner model binds them, in its provider's form.

        Raises:
            ToolsRefused: the class of the inner model takes no tools.
        """
        try:
            bound = cast("RunnableBinding[Any, Any]", self.inner.bind_tools(tools, **options))
        except NotImplementedError:  # by which LangChain's classes say so
            raise ToolsRefused(NO_TOOLS) from None
        return dict(bound.kwargs)

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
        with _translate_time_out(deadline):
            async with asyncio.timeout(self._limit_s(deadline)):
                message: BaseMessage | None = await inject_model_fault(faults, self.configured_name)
                if message is None:
                    result = await self.inner._agenerate(sent, stop, run_manager, **kwargs)  # noqa: SLF001 - see the class
                    message = _with_info(result.generations[0])
            reply = reader.read(cast("AIMessage", message))
        self._learn_and_check(reader, reply, nonempty=nonempty)
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
        with _translate_time_out(deadline):
            chunks = self._chunks(sent, stop, faults, until, kwargs)
            async with aclosing(chunks):
                begun = False
                async for chunk in chunks:
                    begun = True
                    message = _with_info(chunk)
                    passed = reader.feed(cast("AIMessageChunk", message))
                    if passed is chunk.message:
                        yield chunk
                    elif (
                        passed.content or passed.additional_kwargs or passed.response_metadata or passed.usage_metadata
                    ):
                        yield ChatGenerationChunk(message=passed)
            if not begun:
                raise ModelUnreadable(NO_ANSWER)
            last = reader.finish()
        self._learn_and_check(reader, last, nonempty=nonempty)
        yield ChatGenerationChunk(message=last)

    async def _chunks(
        self,
        sent: list[BaseMessage],
        stop: list[str] | None,
        faults: tuple[Fault, ...],
        until: float,
        kwargs: dict[str, Any],
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        """Yield the chunks of the inner model until the loop's time `until`."""
        async with asyncio.timeout_at(until):
            malformed = await inject_model_fault(faults, self.configured_name)
        if malformed:
            yield ChatGenerationChunk(message=malformed)
            return
        stream = cast("AsyncGenerator[ChatGenerationChunk]", self.inner._astream(sent, stop, **kwargs))  # noqa: SLF001
        async with aclosing(stream):
            while (chunk := await _next(stream, until)) is not None:
                yield chunk

    def _reader(self, sent: list[BaseMessage], kwargs: dict[str, Any]) -> ReplyReader:
        habits, tools = self._habits, kwargs.get("tools", ())
        if habits.latest_tools[0] is not tools:
            habits.latest_tools = tools, tool_names(tools), argumentless_tools(tools)
        _, names, argumentless = habits.latest_tools
        wants_reason = habits.gives_reasons and not habits.checks_reason
        return ReplyReader(sent, names, habits.holds_text, wants_reason, argumentless)

    def _learn_and_check(self, reader: ReplyReader, last: AIMessage, *, nonempty: bool) -> None:
        """Learn the model's habits from a whole reply, and reject an empty one if `nonempty`."""
        habits = self._habits
        habits.holds_text = habits.holds_text or reader.lone_end
        habits.gives_reasons = habits.gives_reasons or reader.has_reason
        says_something = (
            reader.last_text or CUT_CALLS in last.response_metadata or read_finish_reason(last) == "content_filter"
        )
        if nonempty and reader.is_empty and not says_something:
            raise ModelUnreadable(NO_ANSWER)

    def _limit_s(self, deadline: float | None) -> float:
        return self.timeout_s if deadline is None else call_timeout_s(deadline, self.timeout_s)


def _with_info(generation: ChatGeneration) -> BaseMessage:
    """Return the message with the `generation_info` that LangChain's packages put beside it."""
    message, info = generation.message, generation.generation_info
    if not info:
        return message
    return message.model_copy(update={"response_metadata": {**info, **message.response_metadata}})


async def _next(stream: AsyncGenerator[ChatGenerationChunk], until: float) -> ChatGenerationChunk | None:
    """Wait for the next chunk until the loop's time `until`."""
    async with asyncio.timeout_at(until):
        return await anext(stream, None)


@contextmanager
def _translate_time_out(deadline: float | None) -> Iterator[None]:
    with translate_errors():
        try:
            yield
        except TimeoutError:
            if deadline is not None and is_over(deadline):
                raise DeadlineExceeded("The request's time ran out") from None
            raise


async def inject_model_fault(faults: tuple[Fault, ...], name: str) -> AIMessageChunk | None:
    """Return a malformed reply if an injected fault of the model asks for it.

    Raises:
        ConnectionError: a fault wants the call to fail.
    """
    if not await inject_fault(faults, f"model:{name}", ConnectionError("an injected fault")):
        return None
    call = tool_call_chunk(name="", args=GARBAGE, id="call_garbage", index=0)
    return AIMessageChunk(content="", tool_call_chunks=[call], response_metadata={"finish_reason": "tool_calls"})
