"""Is a turn run from message to answer, whatever the tools and the model do?"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from serve_app.agent.toolbelt import Toolbelt
from serve_app.agent.turn import Turn
from serve_app.config import AgentSettings, KnowledgeSettings, MemorySettings
from serve_app.errors import DeadlineExceeded, ModelUnavailable, StoreUnavailable, ToolUnavailable
from serve_app.memory.window import Window
from serve_app.runs.lease import session_held
from serve_app.values import (
    Answer,
    ChatRequest,
    Check,
    Context,
    EventData,
    Passage,
    RunStarted,
    Token,
    ToolCall,
    ToolRequest,
    ToolResult,
    ToolSpec,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

USAGE = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}


class Scripted(BaseChatModel):
    """Gives the replies in turn and remembers what it was asked."""

    replies: list[AIMessage]
    asked: list[list[BaseMessage]]
    tools_bound: list[int]
    pause_s: float = 0

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=tools, **kwargs)

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    def _next(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> AIMessage:
        self.asked.append(messages)
        self.tools_bound.append(len(kwargs.get("tools", [])))
        return self.replies[len(self.asked) - 1].model_copy(update={"usage_metadata": USAGE})

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        await asyncio.sleep(self.pause_s)
        return ChatResult(generations=[ChatGeneration(message=self._next(messages, kwargs))])

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        reply = self._next(messages, kwargs)
        for word in reply.text.split(" ") if reply.text else []:
            yield ChatGenerationChunk(message=AIMessageChunk(content=word + " "))
        chunks = [
            {"name": call["name"], "args": json.dumps(call["args"]), "id": call["id"], "index": index}
            for index, call in enumerate(reply.tool_calls)
        ]
        last = AIMessageChunk(content="", tool_call_chunks=chunks, usage_metadata=reply.usage_metadata)  # type: ignore[arg-type]
        yield ChatGenerationChunk(message=last)


class FakeTools:
    """`echo` repeats, `broken` fails, `flaky` fails once, `gone` has no replica; implements `ports.Tools`."""

    def __init__(self) -> None:
        self.down = False
        self.failed = False

    async def specs(self) -> list[ToolSpec]:
        if self.down:
            raise ToolUnavailable("gone")
        names = ["echo", "broken", "flaky", "gone"]
        return [
            ToolSpec(name=name, description=name, parameters={}, timeout_s=1, attempts=2, effect="pure")
            for name in names
        ]

    async def call(self, context: Context, name: str, arguments: dict[str, Any]) -> ToolResult:
        if name == "gone":
            raise ToolUnavailable("gone")
        if name == "broken" or (name == "flaky" and not self.failed):
            self.failed = True
            return ToolResult(content="error: broken failed", status="error", attempts=2, elapsed_ms=1)
        if "text" not in arguments:
            return ToolResult(content="error: wrong arguments", status="error", attempts=0, elapsed_ms=0)
        await asyncio.sleep(arguments.get("sleep_s", 0))
        return ToolResult(content=arguments["text"], status="ok", attempts=1, elapsed_ms=1)

    async def checks(self) -> list[Check]:
        return []


class FakeRetriever:
    """Finds two passages for anything but `nothing`; fails for `fail`."""

    async def search(self, context: Context, query: str) -> list[Passage]:
        if query == "fail":
            raise StoreUnavailable("Milvus did not answer")
        if query == "nothing":
            return []
        texts = [
            "Descale the kettle every three months: it needs citric acid and patience.",
            "The warranty lasts five years. The kettle needs citric acid now and then.",
        ]
        return [
            Passage(document_id="d", source=f"{query}{number}.md", title="T", text=text, score=0.5)
            for number, text in enumerate(texts, 1)
        ]


def _reply(text: str = "", *calls: tuple[str, dict[str, Any]]) -> AIMessage:
    made = [{"id": f"c{index}", "name": name, "args": args} for index, (name, args) in enumerate(calls)]
    return AIMessage(text, tool_calls=made)


class Desk:
    """A turn runner over fakes, and what it emitted."""

    def __init__(self, redis: Redis, *replies: AIMessage, **settings: Any) -> None:
        self.model = Scripted(replies=list(replies), asked=[], tools_bound=[])
        self.tools = FakeTools()
        belt = Toolbelt(self.tools, FakeRetriever(), KnowledgeSettings(), time.monotonic)  # type: ignore[arg-type]
        self.window = Window(redis, MemorySettings())
        self.turn = Turn(
            model=self.model,
            model_name="scripted",
            belt=belt,
            window=self.window,
            session=partial(session_held, redis),
            settings=AgentSettings(**settings),
        )
        self.emitted: list[EventData] = []

    async def ask(self, text: str = "hello", seconds: float = 10, *, stream: bool = False) -> Answer:
        context = Context(request_id="r", run_id=f"run{time.time_ns()}", session_id="s", deadline=time.time() + seconds)
        request = ChatRequest(user_input=text, session_id="s", stream=stream)
        return await self.turn.run(context, request, self.emitted.append)

    def tool_messages(self, step: int) -> list[ToolMessage]:
        return [message for message in self.model.asked[step] if isinstance(message, ToolMessage)]


async def test_a_model_that_answers_at_once_makes_a_turn_of_one_step(redis: Redis) -> None:
    desk = Desk(redis, _reply("Hi."))
    answer = await desk.ask()
    assert (answer.result, answer.status, answer.tool_calls, answer.model) == ("Hi.", "success", [], "scripted")
    assert answer.usage == Usage(input_tokens=10, output_tokens=2)


async def test_tools_are_called_and_their_results_go_back_to_the_model(redis: Redis) -> None:
    desk = Desk(redis, _reply("", ("echo", {"text": "one"}), ("echo", {"text": "two"})), _reply("Both."))
    answer = await desk.ask()
    assert [(call.name, call.status) for call in answer.tool_calls] == [("echo", "ok"), ("echo", "ok")]
    assert [message.content for message in desk.tool_messages(1)] == ["one", "two"]
    assert [message.tool_call_id for message in desk.tool_messages(1)] == ["c0", "c1"]
    assert answer.usage == Usage(input_tokens=20, output_tokens=4)


async def test_calls_of_one_step_run_side_by_side_and_keep_their_order(redis: Redis) -> None:
    slow, quick = ("echo", {"text": "slow", "sleep_s": 0.4}), ("echo", {"text": "quick", "sleep_s": 0.4})
    desk = Desk(redis, _reply("", slow, quick), _reply("Done."))
    begun = time.monotonic()
    await desk.ask()
    assert time.monotonic() - begun < 0.75
    assert [message.content for message in desk.tool_messages(1)] == ["slow", "quick"]


async def test_a_failed_tool_is_told_to_the_model_and_named_in_the_answer(redis: Redis) -> None:
    desk = Desk(redis, _reply("", ("broken", {}), ("gone", {})), _reply("Sorry."))
    answer = await desk.ask()
    assert (answer.status, answer.degraded) == ("degraded", ["tool:broken", "tool:gone"])
    assert [message.status for message in desk.tool_messages(1)] == ["error", "error"]


async def test_a_wrong_argument_that_the_model_mends_degrades_nothing(redis: Redis) -> None:
    desk = Desk(redis, _reply("", ("echo", {})), _reply("", ("echo", {"text": "x"})), _reply("Good."))
    answer = await desk.ask()
    assert (answer.status, [call.status for call in answer.tool_calls]) == ("success", ["error", "ok"])


async def test_a_retriever_that_is_down_is_named_in_the_answer(redis: Redis) -> None:
    desk = Desk(redis, _reply("", ("knowledge_search", {"query": "fail"})), _reply("Sorry."))
    assert (await desk.ask()).degraded == ["retriever"]


async def test_passages_are_counted_through_the_turn_and_cited_by_number(redis: Redis) -> None:
    steps = [_reply("", ("knowledge_search", {"query": query})) for query in ("a", "b")]
    desk = Desk(redis, *steps, _reply("As [3] says."))
    answer = await desk.ask()
    assert [row["n"] for row in json.loads(desk.tool_messages(2)[1].text)] == [3, 4]
    assert [citation.source for citation in answer.citations] == ["b1.md"]


@pytest.mark.parametrize(
    ("said", "cited"),
    [
        ("Descale the kettle every three months.", ["a1.md"]),
        ("The kettle needs citric acid.", ["a1.md", "a2.md"]),
        ("I found nothing about this in the knowledge base.", []),
        ("知识库中没有找到相关内容。", []),
    ],
)
async def test_what_a_model_rests_on_without_saying_so_is_told_by_its_words(
    redis: Redis, said: str, cited: list[str]
) -> None:
    desk = Desk(redis, _reply("", ("knowledge_search", {"query": "a"})), _reply(said))
    assert [citation.source for citation in (await desk.ask()).citations] == cited


async def test_no_passages_make_no_citation(redis: Redis) -> None:
    desk = Desk(redis, _reply("", ("knowledge_search", {"query": "nothing"})), _reply("Nothing found."))
    assert (await desk.ask()).citations == []


async def test_the_next_turn_sees_the_last_one_with_its_steps(redis: Redis) -> None:
    desk = Desk(redis, _reply("", ("echo", {"text": "x"})), _reply("One."), _reply("Two."))
    await desk.ask("first")
    await desk.ask("second")
    kinds = [message.type for message in desk.model.asked[2]]
    assert kinds == ["system", "human", "ai", "tool", "ai", "human"]
    assert desk.model.asked[2][1].text == "first"


async def test_a_loop_that_does_not_end_is_asked_for_an_answer_without_tools(redis: Redis) -> None:
    again = _reply("", ("echo", {"text": "again"}))
    desk = Desk(redis, again, again, _reply("What I know."), max_steps=3)
    assert (await desk.ask()).result == "What I know."
    assert desk.model.tools_bound == [5, 5, 0]


async def test_an_empty_answer_is_the_models_failure(redis: Redis) -> None:
    with pytest.raises(ModelUnavailable):
        await Desk(redis, _reply("  ")).ask()


async def test_a_turn_ends_at_its_deadline_and_leaves_the_session_free(redis: Redis) -> None:
    desk = Desk(redis, _reply("", ("echo", {"text": "x", "sleep_s": 5})), _reply("Later."))
    with pytest.raises(DeadlineExceeded):
        await desk.ask(seconds=0.5)
    assert [key async for key in redis.scan_iter()] == []


async def test_no_turn_runs_without_the_tools_it_should_have(redis: Redis) -> None:
    desk = Desk(redis, _reply("Hi."))
    desk.tools.down = True
    with pytest.raises(ToolUnavailable):
        await desk.ask()


async def test_a_stream_tells_every_step_in_order(redis: Redis) -> None:
    desk = Desk(redis, _reply("", ("echo", {"text": "x"})), _reply("All is well."))
    answer = await desk.ask(stream=True)
    kinds = [type(step) for step in desk.emitted]
    assert kinds == [RunStarted, ToolRequest, ToolCall, Token, Token, Token]
    assert "".join(step.text for step in desk.emitted if isinstance(step, Token)).strip() == answer.result.strip()


async def test_text_before_a_tool_call_is_restarted_by_the_answer(redis: Redis) -> None:
    desk = Desk(redis, _reply("Let me look.", ("echo", {"text": "x"})), _reply("Found it."))
    await desk.ask(stream=True)
    tokens = [step for step in desk.emitted if isinstance(step, Token)]
    assert [token.restart for token in tokens] == [False, False, False, True, False]


async def test_calls_without_json_arguments_go_back_to_the_model(redis: Redis) -> None:
    bad = AIMessage(
        "", invalid_tool_calls=[{"id": "c0", "name": "echo", "args": "{", "error": "?", "type": "invalid_tool_call"}]
    )
    desk = Desk(redis, bad, _reply("Understood."))
    answer = await desk.ask()
    assert [(call.status, call.attempts) for call in answer.tool_calls] == [("error", 0)]
    assert answer.result == "Understood."


async def test_a_model_that_still_calls_tools_in_its_last_step_leaves_a_whole_history(redis: Redis) -> None:
    again = _reply("I am still looking.", ("echo", {"text": "again"}))
    desk = Desk(redis, again, again, _reply("Two."), max_steps=2)
    answer = await desk.ask()
    assert (answer.result, len(answer.tool_calls)) == ("I am still looking.", 1)
    await desk.ask()
    kinds = [(message.type, len(getattr(message, "tool_calls", []))) for message in desk.model.asked[2]]
    assert kinds == [("system", 0), ("human", 0), ("ai", 1), ("tool", 0), ("ai", 0), ("human", 0)]


async def test_a_call_that_failed_is_not_hidden_by_another_one_of_its_tool(redis: Redis) -> None:
    desk = Desk(redis, _reply("", ("flaky", {"text": "a"}), ("flaky", {"text": "b"})), _reply("Half of it."))
    assert (await desk.ask()).degraded == ["tool:flaky"]


async def test_a_call_that_is_repeated_and_goes_well_degrades_nothing(redis: Redis) -> None:
    twice = _reply("", ("flaky", {"text": "a"}))
    desk = Desk(redis, twice, twice, _reply("All of it."))
    assert (await desk.ask()).degraded == []


async def test_an_answer_is_given_though_redis_is_gone_by_then(redis: Redis) -> None:
    class Forgetful(Window):
        async def append(self, *args: Any) -> bool:
            raise StoreUnavailable("Redis did not answer")

    desk = Desk(redis, _reply("Hi."))
    turn = replace(desk.turn, window=Forgetful(redis, MemorySettings()))
    context = Context(request_id="r", run_id="r", session_id="s", deadline=time.time() + 5)
    answer = await turn.run(context, ChatRequest(user_input="hello", session_id="s"), desk.emitted.append)
    assert (answer.result, answer.degraded) == ("Hi.", ["memory"])


async def test_the_user_is_kept_with_the_exchange(redis: Redis) -> None:
    desk = Desk(redis, _reply("Hi."))
    context = Context(request_id="r", run_id="r", session_id="s", deadline=time.time() + 5)
    await desk.turn.run(context, ChatRequest(user_input="hi", session_id="s", user_id="ann"), desk.emitted.append)
    assert (await desk.window.session(context, 1)).exchanges[0].user_id == "ann"
