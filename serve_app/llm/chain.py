"""Which of several models answers a call? Fallback > breaker > retry > time-out > call.

What a reply says of it stands in its `response_metadata`: keys of our own, because a provider's may have any name, and
in one chunk of a stream only, because LangChain adds up what stands in several.
"""

from __future__ import annotations

import math
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from langchain_core.language_models import BaseChatModel
from pydantic import Field, InstanceOf, SkipValidation

from serve_app.llm.telling import told
from serve_app.llm.tries import Link, Tries
from serve_app.observability.recorders import SILENT
from serve_app.observability.untraced import UNRECORDED
from serve_app.ports import Metrics  # noqa: TC001 - pydantic reads the annotations
from serve_app.values import Check

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.outputs import ChatGenerationChunk, ChatResult
    from langchain_core.runnables import Runnable, RunnableBinding
    from langchain_core.tools import BaseTool

    from serve_app.resilience.budget import Budget
    from serve_app.resilience.circuit import Circuit

MODEL = "serve_app_model"
"""The name of the model that replied."""
FALLBACK = "serve_app_fallback"
"""There and true where that is not the first one."""
RESTART = "serve_app_restart"
"""There and true in the chunk with which a stream begins anew: what came before it is to be discarded."""


class Chain(BaseChatModel):
    """Asks its models in turn until one answers; what one call meets changes nothing for others but by the breakers.

    A call ends by `deadline=` (Unix time in seconds), and takes its retries from `budget=`. A stream that breaks is an
    error, as everywhere in LangChain; one that is given `restarts=True` goes on with another try, whose first chunk is
    marked as `RESTART`. Each try is recorded as a part of `span=`, where one is given.

    A call raises:
        DeadlineExceeded: the deadline has come.
        InvalidRequest: the conversation is longer than the first model can read.
        ModelUnavailable: no model answered; `retry_after_s` is the shortest that any of them named.
    """

    links: tuple[InstanceOf[Link], ...]
    attempts: int
    metrics: SkipValidation[Metrics] = Field(default=SILENT, repr=False, exclude=True)

    @property
    def circuits(self) -> dict[str, Circuit]:
        """The breaker of each model."""
        return {f"model:{link.name}": link.circuit for link in self.links}

    @property
    def _llm_type(self) -> str:
        return "chain"

    def checks(self) -> list[Check]:
        """Whether each model is asked now; none is required while another one is."""
        answerable = any(link.circuit.admits for link in self.links)
        return [_check(link.circuit, required=not answerable) for link in self.links]

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """As they are: each model binds them in its provider's form when it is asked."""
        chosen = {"tool_choice": tool_choice} if tool_choice else {}
        return self.bind(tools=list(tools), **chosen, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError("a chain is asked asynchronously: a blocking call cannot be ended in time")

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        *,
        deadline: float | None = None,
        budget: Budget | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        span = kwargs.pop("span", UNRECORDED)
        tries = Tries(self.links, self.attempts, deadline, budget, self.metrics, span, partial(told, messages))
        async for link, asking in tries:
            with asking as heard:
                given = _bound(link, kwargs)
                result = await link.model._agenerate(messages, stop, run_manager, deadline=deadline, **given)  # noqa: SLF001 - see Guarded
                for generation in result.generations:
                    heard.hear(generation.message)
                    self._mark(generation.message, link)
                return result
        raise tries.failure

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002 - `astream` reports what this yields
        *,
        deadline: float | None = None,
        budget: Budget | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        restarts, begun = kwargs.pop("restarts", False), False
        span = kwargs.pop("span", UNRECORDED)
        tries = Tries(self.links, self.attempts, deadline, budget, self.metrics, span, partial(told, messages))
        async for link, asking in tries:
            with asking as heard:
                stream = link.model._astream(messages, stop, deadline=deadline, **_bound(link, kwargs))  # noqa: SLF001
                async with aclosing(cast("AsyncGenerator[ChatGenerationChunk]", stream)) as chunks:
                    fresh = True
                    async for chunk in chunks:
                        heard.hear(chunk.message)
                        if fresh:
                            self._mark(chunk.message, link, restart=begun)
                        fresh, begun = False, True
                        yield chunk
                return
            if begun and not restarts:
                break
        raise tries.failure

    def _mark(self, message: BaseMessage, link: Link, *, restart: bool = False) -> None:
        marks = {MODEL: link.name, FALLBACK: link is not self.links[0], RESTART: restart}
        message.response_metadata = {**message.response_metadata, **{key: mark for key, mark in marks.items() if mark}}


def _bound(link: Link, kwargs: dict[str, Any]) -> dict[str, Any]:
    """What a call was given, its tools in the form of the model's provider."""
    others = dict(kwargs)
    tools = others.pop("tools", None)
    if not tools:
        return others
    return dict(cast("RunnableBinding[Any, Any]", link.model.bind_tools(tools, **others)).kwargs)


def _check(circuit: Circuit, *, required: bool) -> Check:
    name = f"model:{circuit.name}"
    if circuit.admits:
        return Check(name=name, ok=True, required=required)
    reason = f"It has failed again and again, and is left alone for {math.ceil(circuit.retry_after_s)} s"
    return Check(name=name, ok=False, reason=reason, required=required)
