"""Test harness: several agent processes that share answers, over one Redis and one model."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from agent_process import USAGE, _chain, context
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from serve_app.config import CacheSettings
from serve_app.errors import ModelUnavailable
from serve_app.observability.metric_catalogue import CACHE_LOOKUPS
from serve_app.values import Answer, ChatRequest, Failed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from agent_process import AgentProcess

CACHING = CacheSettings(ttl_s=60, live_tools=("order_query",))
sessions = itertools.count()


class EchoModel(BaseChatModel):
    """Answers `echo it: …` after a call of echo, and so of each tool, `search it: …` after a search; all else at once.

    Its answer ends with what the tool brought. `fails` it answers by an error.
    """

    calls: Counter[str]
    """How often it was asked to begin with a question."""
    pause_s: float = 0.0
    gate: asyncio.Event | None = None
    """Without which it does not answer."""

    @property
    def _llm_type(self) -> str:
        return "echo"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=tools, **kwargs)

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=await self._reply(messages))])

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        reply = await self._reply(messages)
        calls = [
            {"name": call["name"], "args": '{"text": "x", "query": "x"}', "id": call["id"], "index": index}
            for index, call in enumerate(reply.tool_calls)
        ]
        last = AIMessageChunk(content=reply.text, tool_call_chunks=calls, usage_metadata=USAGE)  # type: ignore[arg-type]
        yield ChatGenerationChunk(message=last)

    async def _reply(self, messages: list[BaseMessage]) -> AIMessage:
        question = next(str(each.content) for each in reversed(messages) if isinstance(each, HumanMessage))
        tool = question.split(" it:")[0] if " it:" in question else ""
        if isinstance(messages[-1], ToolMessage):
            return _text_reply(f"Answer to {question} by {messages[-1].content}")
        self.calls[question] += 1
        if self.gate:
            await self.gate.wait()
        await asyncio.sleep(self.pause_s)
        if question.startswith("fails"):
            raise ModelUnavailable("It fails")
        if tool:
            name = "knowledge_search" if tool == "search" else tool
            call = {"id": f"call_{uuid4().hex}", "name": name, "args": {"text": "x", "query": "x"}}
            return _text_reply("", call)
        return _text_reply(f"Answer to {question}")


def _text_reply(text: str, *calls: dict[str, Any]) -> AIMessage:
    return AIMessage(text, tool_calls=list(calls), usage_metadata=USAGE)  # type: ignore[arg-type]


class AgentPool:
    """Processes that keep answers, over one Redis and with one model."""

    def __init__(
        self,
        start_agent: Callable[..., AgentProcess],
        agents: int = 2,
        cache: CacheSettings = CACHING,
        **given: Any,
    ):
        self.model = EchoModel(calls=Counter())
        self.agents = [
            start_agent(fallback=_chain(self.model), cache=cache, max_runs=1000, **given)  # type: ignore[arg-type]
            for _ in range(agents)
        ]
        self._turns = itertools.cycle(self.agents)

    async def ask(self, text: str, agent: AgentProcess | None = None, **given: Any) -> Answer:
        """An answer, in a session of its own unless one is named."""
        last = await self.end(text, agent, **given)
        assert isinstance(last, Answer), last
        return last

    async def end(self, text: str, agent: AgentProcess | None = None, **given: Any) -> Answer | Failed:
        """How the turn ends; what is given are fields of its context."""
        session, stream = given.pop("session_id", f"s{next(sessions)}"), given.pop("stream", False)
        turn_context = context(session=session).model_copy(update=given)
        chosen = agent or next(self._turns)
        request = ChatRequest(user_input=text, session_id=session, stream=stream)
        events = await chosen.follow(turn_context, request)
        chosen.emitted = [event.data for event in events]
        last: Any = chosen.emitted[-1]
        return last

    @property
    def lookups(self) -> dict[str, int]:
        """How often which, over all processes."""
        counted: Counter[str] = Counter()
        for agent in self.agents:
            counted.update({str(name): int(count) for name, count in agent.metrics.of(CACHE_LOOKUPS).items()})
        return dict(counted)

    async def begun(self, question: str, times: int = 1) -> None:
        """Wait until the model was asked so often."""
        for _ in range(1000):
            if self.model.calls[question] >= times:
                return
            await asyncio.sleep(0.005)
        raise TimeoutError(question)
