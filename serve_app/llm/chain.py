"""Several models as one: fallback > circuit breaker > retry > time-out > call.

What a reply says of it stands in its `response_metadata`: keys of our own, because a provider's may have any name, and
in one chunk of a stream only, because LangChain adds up what stands in several.
"""

from __future__ import annotations

import math
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field, InstanceOf, SkipValidation

from serve_app.config import FallbackOn  # noqa: TC001 - pydantic reads the annotations
from serve_app.llm.conversation import MODEL, without_tools
from serve_app.llm.reply_reader import FINISH, TRUNCATED
from serve_app.llm.telling import told
from serve_app.llm.tool_schema import for_provider
from serve_app.llm.translate import CUT_OFF, FILTERED, ContentFiltered, ReplyCutOff
from serve_app.llm.tries import Link, Tries
from serve_app.observability.recorders import SILENT
from serve_app.observability.untraced import UNRECORDED
from serve_app.ports import Metrics  # noqa: TC001 - pydantic reads the annotations
from serve_app.values import DependencyCheck

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import Runnable, RunnableBinding
    from langchain_core.tools import BaseTool

    from serve_app.resilience.budget import Budget
    from serve_app.resilience.circuit import Circuit

FALLBACK = "serve_app_fallback"
"""There and true where that is not the first one."""
RESTART = "serve_app_restart"
"""There and true in the chunk with which a stream begins anew: what came before it is to be discarded."""


class Chain(BaseChatModel):
    """Asks its models in turn until one answers; what one call meets changes nothing for others but by the breakers.

    A call ends by `deadline=` (Unix time in seconds), and takes its retries from `budget=`. A stream that breaks is an
    error, as everywhere in LangChain; one that is given `restarts=True` goes on with another try, whose first chunk is
    marked as `RESTART`. A whole reply that is not taken, because another model is to answer, is passed to `given_up=`.
    Each try is recorded as a part of `span=`, where one is given.

    A provider that refuses what the conversation says gives a reply all the same: without text, its `FINISH` is
    `content_filter`. A call raises:
        ContextOverflow: the conversation is longer than the models read.
        DeadlineExceeded: the deadline has come.
        ModelUnavailable: no model answered; `retry_after_s` is the shortest that any of them named.
    """

    links: tuple[InstanceOf[Link], ...]
    attempts: int
    fallback_on: frozenset[FallbackOn] = frozenset()
    """Which whole replies the next model is asked for, too."""
    metrics: SkipValidation[Metrics] = Field(default=SILENT, repr=False, exclude=True)

    @property
    def circuits(self) -> dict[str, Circuit]:
        """The breaker of each model."""
        return {f"model:{link.name}": link.circuit for link in self.links}

    @property
    def _llm_type(self) -> str:
        return "chain"

    def checks(self) -> list[DependencyCheck]:
        """Whether each model is asked now; none is required while another one is."""
        answerable = any(link.circuit.admits and not link.problem for link in self.links)
        return [_check(link, required=not answerable) for link in self.links]

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
        span, given_up = kwargs.pop("span", UNRECORDED), kwargs.pop("given_up", None)
        tries = Tries(self.links, self.attempts, deadline, budget, self.metrics, span, partial(told, messages))
        async for link, asking in tries:
            with asking as heard:
                sent, given = _bound(link, messages, kwargs)
                result = await link.model._agenerate(sent, stop, run_manager, deadline=deadline, **given)  # noqa: SLF001 - see Guarded
                for generation in result.generations:
                    heard.hear(generation.message)
                    self._judge(generation.message, tries)
                    self._mark(generation.message, link)
                return result
            if given_up:
                for message in heard.messages:
                    given_up(message)
            if tries.filtered and not self._falls_back("refusal", tries):
                break
        return ChatResult(generations=[ChatGeneration(message=self._refusal(tries))])

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
                sent, given = _bound(link, messages, kwargs)
                stream = link.model._astream(sent, stop, deadline=deadline, **given)  # noqa: SLF001
                async with aclosing(cast("AsyncGenerator[ChatGenerationChunk]", stream)) as chunks:
                    fresh = True
                    async for chunk in chunks:
                        heard.hear(chunk.message)
                        self._judge(chunk.message, tries)
                        if fresh:
                            self._mark(chunk.message, link, restart=begun)
                        fresh, begun = False, True
                        yield chunk
                return
            if (begun and not restarts) or (tries.filtered and not self._falls_back("refusal", tries)):
                break
        if begun and not restarts:
            raise tries.failure
        refusal = self._refusal(tries)
        if begun:
            refusal.response_metadata[RESTART] = True
        yield ChatGenerationChunk(message=AIMessageChunk(content="", response_metadata=refusal.response_metadata))

    def _judge(self, message: BaseMessage, tries: Tries) -> None:
        """Go on to the next model where the settings name the reply's end, or it was cut off before it said anything.

        Raises:
            ContentFiltered: the reply is a refusal.
            ReplyCutOff: the reply was cut off at a limit.
        """
        finish = message.response_metadata.get(FINISH)
        if finish == "content_filter" and self._falls_back("refusal", tries):
            raise ContentFiltered(FILTERED)
        metadata = message.response_metadata
        useless = TRUNCATED not in metadata and tries.another
        if finish == "length" and (useless or self._falls_back("length", tries)):
            raise ReplyCutOff(CUT_OFF)

    def _falls_back(self, kind: FallbackOn, tries: Tries) -> bool:
        return kind in self.fallback_on and tries.another

    def _refusal(self, tries: Tries) -> AIMessage:
        """The reply of a provider that refused with an error.

        Raises:
            ServeAppError: the call failed otherwise.
        """
        if not tries.refused:
            raise tries.failure
        link = self.links[0]
        return AIMessage("", response_metadata={FINISH: "content_filter", MODEL: link.name})

    def _mark(self, message: BaseMessage, link: Link, *, restart: bool = False) -> None:
        marks = {MODEL: link.name, FALLBACK: link is not self.links[0], RESTART: restart}
        message.response_metadata = {**message.response_metadata, **{key: mark for key, mark in marks.items() if mark}}


def _bound(link: Link, messages: list[BaseMessage], kwargs: dict[str, Any]) -> tuple[list[BaseMessage], dict[str, Any]]:
    """The conversation and the call's options in the form of one model and its provider."""
    others = dict(kwargs)
    tools = others.pop("tools", None)
    if not link.takes_tools:
        others.pop("tool_choice", None)
        return without_tools(messages), others
    if not tools:
        return messages, others
    fitting = [_fitting(tool, link) for tool in tools]
    bound = cast("RunnableBinding[Any, Any]", link.model.bind_tools(fitting, **others))
    return messages, dict(bound.kwargs)


def _fitting(tool: Any, link: Link) -> Any:
    """A tool with the schema that the provider takes."""
    if not (isinstance(tool, dict) and isinstance(tool.get("function"), dict)):
        return tool
    function = tool["function"]
    parameters = for_provider(function.get("parameters") or {}, link.dialect)
    return {**tool, "function": {**function, "parameters": parameters}}


def _check(link: Link, *, required: bool) -> DependencyCheck:
    name = f"model:{link.name}"
    if link.problem:
        return DependencyCheck(name=name, ok=False, reason=link.problem, required=required)
    if link.circuit.admits:
        return DependencyCheck(name=name, ok=True, required=required)
    reason = f"It has failed again and again, and is left alone for {math.ceil(link.circuit.retry_after_s)} s"
    return DependencyCheck(name=name, ok=False, reason=reason, required=required)
