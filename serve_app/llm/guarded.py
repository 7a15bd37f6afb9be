"""How long may a model call take, and in whose terms does it fail?"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages.utils import message_chunk_to_message
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from serve_app.errors import DeadlineExceeded
from serve_app.llm.faults import stricken
from serve_app.llm.translate import ModelUnreadable, translated
from serve_app.resilience.deadline import limit_s, remaining_s

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence

    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.runnables import Runnable, RunnableBinding
    from langchain_core.tools import BaseTool

    from serve_app.values import Fault


class Guarded(BaseChatModel):
    """A chat model whose every call ends within `timeout_s` and fails as one of our errors.

    A call that is given `deadline=` (Unix time in seconds) ends by then too. The inner model is asked by the hooks that
    LangChain asks this one by, so that a call is one run in every trace.
    """

    inner: BaseChatModel
    timeout_s: float
    called: str = ""
    """The name by which the configuration knows it."""

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
        """As the inner model binds them: each provider has its own form for tools."""
        chosen = {"tool_choice": tool_choice} if tool_choice else {}
        bound = cast("RunnableBinding[Any, Any]", self.inner.bind_tools(tools, **chosen, **kwargs))
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
        with _in_our_terms(deadline):
            async with asyncio.timeout(self._limit_s(deadline)):
                if malformed := await stricken(faults, self.called):
                    message = message_chunk_to_message(malformed)
                    return ChatResult(generations=[ChatGeneration(message=message)])
                return await self.inner._agenerate(messages, stop, run_manager, **kwargs)  # noqa: SLF001 - see the class

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
        until = asyncio.get_running_loop().time() + self._limit_s(deadline)
        stream = cast(
            "AsyncGenerator[ChatGenerationChunk]",
            self.inner._astream(messages, stop, **kwargs),  # noqa: SLF001 - see the class
        )
        empty = True
        with _in_our_terms(deadline):
            async with aclosing(stream):
                async with asyncio.timeout_at(until):
                    malformed = await stricken(faults, self.called)
                if malformed:
                    yield ChatGenerationChunk(message=malformed)
                    return
                while (chunk := await _next(stream, until)) is not None:
                    empty = False
                    yield chunk
        if empty:
            raise ModelUnreadable("The model gave no answer")

    def _limit_s(self, deadline: float | None) -> float:
        return self.timeout_s if deadline is None else limit_s(deadline, self.timeout_s)


async def _next(stream: AsyncGenerator[ChatGenerationChunk], until: float) -> ChatGenerationChunk | None:
    """The next chunk, waited for until the loop's time `until`; never while the reader has the last one."""
    async with asyncio.timeout_at(until):
        return await anext(stream, None)


@contextmanager
def _in_our_terms(deadline: float | None) -> Iterator[None]:
    with translated():
        try:
            yield
        except TimeoutError:
            if deadline is not None and not remaining_s(deadline):
                raise DeadlineExceeded("The request's time ran out") from None
            raise
