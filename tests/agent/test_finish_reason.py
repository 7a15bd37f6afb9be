"""Turns whose model refuses, is cut off, thinks, takes no tools, or reads less than the conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from agent_process import USAGE, context
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from serve_app.llm.error_translation import ContentFiltered, ContextOverflow, KeyRefused, ToolsRefused
from serve_app.llm.fallback import FallbackModel, ModelCandidate
from serve_app.llm.guarded import GuardedModel
from serve_app.resilience.circuit_breaker import BreakerPolicy, GuardedCalls
from serve_app.values import Answer, ChatRequest, Reasoning, Token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from agent_process import AgentProcess

    Open = Callable[..., AgentProcess]
    Answering = Callable[[list[BaseMessage], dict[str, Any]], AIMessage]


class Provider(BaseChatModel):
    """Answers as `answering` says, whole and in a stream of one chunk."""

    answering: Any
    requests: list[list[BaseMessage]]

    @property
    def _llm_type(self) -> str:
        return "provider"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=tools, **kwargs)

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    def _reply(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> AIMessage:
        self.requests.append(messages)
        reply: AIMessage = self.answering(messages, kwargs)
        return reply.model_copy(update={"usage_metadata": USAGE})

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._reply(messages, kwargs))])

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        fields = self._reply(messages, kwargs).model_dump(exclude={"type"})
        yield ChatGenerationChunk(message=AIMessageChunk(**fields))


def _agent(
    start_agent: Open, *answering: Answering, max_steps: int = 6, **link: Any
) -> tuple[AgentProcess, list[Provider]]:
    providers = [Provider(answering=each, requests=[]) for each in answering]
    limit = BreakerPolicy(failures=1, cool_down_s=10)
    links = [
        ModelCandidate(
            GuardedModel(inner=each, timeout_s=5, configured_name=f"m{place}"), GuardedCalls(f"m{place}", limit), **link
        )
        for place, each in enumerate(providers)
    ]
    chain = FallbackModel(candidates=tuple(links), attempts=2)
    agent = start_agent(fallback=chain, takes_tools=link.get("takes_tools", True), max_steps=max_steps)
    return agent, providers


def _ended(text: str, finish: str, **more: Any) -> AIMessage:
    return AIMessage(text, response_metadata={"finish_reason": finish}, **more)


def _call(name: str, **args: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"id": "same", "name": name, "args": args}])


def _raise(error: Exception) -> Any:
    raise error


async def test_an_answer_that_was_cut_off_says_so(start_agent: Open) -> None:
    agent, _ = _agent(start_agent, lambda *_: _ended("The three steps are", "length"))
    for stream in (False, True):
        answer = await agent.ask(stream=stream)
        assert (answer.result, answer.status, answer.degraded) == ("The three steps are", "degraded", ["truncated"])
        assert answer.finish_reason == "length"


async def test_a_refusal_is_told_once_and_in_the_user_s_language(start_agent: Open) -> None:
    for reply in (
        lambda *_: _ended("", "content_filter"),
        lambda *_: _raise(ContentFiltered("filtered")),
        lambda *_: _ended("", "stop", additional_kwargs={"refusal": "I will not."}),
    ):
        agent, (provider,) = _agent(start_agent, reply)
        english, chinese = await agent.ask("hello"), await agent.ask("你好", stream=True)
        assert [each.finish_reason for each in (english, chinese)] == ["content_filter"] * 2
        assert [each.status for each in (english, chinese)] == ["success"] * 2
        assert english.result != chinese.result or english.result == "I will not."
        assert "".join(each.text for each in agent.emitted if isinstance(each, Token)) == chinese.result
        assert len(provider.requests) == 2


async def test_a_refusal_opens_no_circuit_breaker(start_agent: Open) -> None:
    agent, (provider,) = _agent(start_agent, lambda *_: _raise(ContentFiltered("filtered")))
    for _ in range(4):
        await agent.ask()
    assert len(provider.requests) == 4


async def test_a_wrong_key_stays_not_retryable_and_is_named_by_its_variable(start_agent: Open) -> None:
    agent, (provider,) = _agent(start_agent, lambda *_: _raise(KeyRefused("no")), key_env="OUR_KEY")
    for _ in range(3):
        assert not (await agent.fail()).retryable
    assert len(provider.requests) == 3
    chain = FallbackModel(
        candidates=(
            ModelCandidate(
                GuardedModel(inner=provider, timeout_s=5), GuardedCalls("m", BreakerPolicy(1, 1)), key_env="OUR_KEY"
            ),
        ),
        attempts=1,
    )
    chain.candidates[0].record_outcome(KeyRefused("no"))
    (check,) = chain.checks()
    assert (check.ok, "OUR_KEY" in (check.reason or "")) == (False, True)


async def test_calls_that_were_cut_off_are_told_to_the_model_and_not_made(start_agent: Open) -> None:
    def answering(messages: list[BaseMessage], kwargs: dict[str, Any]) -> AIMessage:
        cut = _call("pay", text="5")
        return (
            cut.model_copy(update={"response_metadata": {"finish_reason": "length"}})
            if kwargs.get("tools")
            else AIMessage("No.")
        )

    agent, (provider,) = _agent(start_agent, answering)
    answer = await agent.ask()
    assert (answer.result, answer.degraded, answer.tool_calls) == ("No.", ["model", "truncated"], [])
    assert "cut off" in provider.requests[1][0].text
    assert agent.tools.made == []


async def test_of_calls_that_were_cut_off_the_fallback_is_asked_first(start_agent: Open) -> None:
    cut = _call("pay", text="5").model_copy(update={"response_metadata": {"finish_reason": "length"}})
    agent, (first, _) = _agent(start_agent, lambda *_: cut, lambda *_: AIMessage("The second."))
    for stream in (False, True):
        answer = await agent.ask(stream=stream)
        assert (answer.result, answer.degraded) == ("The second.", ["model"])
    assert (len(first.requests), agent.tools.made) == (2, [])


async def test_calls_of_a_filtered_reply_are_a_refusal(start_agent: Open) -> None:
    agent, _ = _agent(
        start_agent, lambda *_: _ended("", "content_filter", tool_calls=_call("pay", text="5").tool_calls)
    )
    answer = await agent.ask()
    assert (answer.finish_reason, answer.tool_calls, bool(answer.result)) == ("content_filter", [], True)


async def test_thinking_is_shown_to_who_asks_and_never_remembered(start_agent: Open) -> None:
    thought = lambda *_: AIMessage("<think>a plan</think>Hello.", additional_kwargs={"reasoning_content": "more "})  # noqa: E731
    agent, (provider,) = _agent(start_agent, thought)
    assert (await agent.ask(stream=True)).result == "Hello."
    assert not [each for each in agent.emitted if isinstance(each, Reasoning)]
    assert (await agent.ask(stream=True, reasoning=True)).result == "Hello."
    assert "".join(each.text for each in agent.emitted if isinstance(each, Reasoning)) == "more a plan"
    assert [each.text for each in provider.requests[-1] if isinstance(each, AIMessage)] == ["Hello."]
    session = await agent.memory.session(context(), 10)
    assert "plan" not in session.model_dump_json()


async def test_a_provider_s_thinking_comes_back_with_its_calls_in_later_turns_too(start_agent: Open) -> None:
    def answering(messages: list[BaseMessage], kwargs: dict[str, Any]) -> AIMessage:
        calling = [each for each in messages if isinstance(each, AIMessage) and each.tool_calls]
        assert all(each.additional_kwargs.get("reasoning_content") == "a plan" for each in calling)
        if isinstance(messages[-1], ToolMessage):
            return AIMessage("Done.")
        return _call("echo", text="x").model_copy(update={"additional_kwargs": {"reasoning_content": "a plan"}})

    agent, (provider,) = _agent(start_agent, answering)
    for _ in range(2):
        assert (await agent.ask()).result == "Done."
    assert len(provider.requests[-1]) == 8
    assert "a plan" not in (await agent.memory.session(context(), 10)).model_dump_json()


async def test_a_conversation_that_is_too_long_is_shortened_and_the_answer_says_so(start_agent: Open) -> None:
    def answering(messages: list[BaseMessage], kwargs: dict[str, Any]) -> AIMessage:
        size = sum(len(each.text) for each in messages if not isinstance(each, SystemMessage))
        return _raise(ContextOverflow("too long")) if size > 3000 else AIMessage("long " * 200)

    agent, _ = _agent(start_agent, answering)
    for _ in range(2):
        assert (await agent.ask()).degraded == []
    for _ in range(3):
        assert (await agent.ask("x" * 1500)).degraded == ["memory"]
    assert (await agent.fail("x" * 4000)).code == "invalid_request"
    assert (await agent.ask()).status in {"success", "degraded"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reply_that_is_given_up_for_another_model_is_charged_too(start_agent: Open, *, stream: bool) -> None:
    agent, _ = _agent(start_agent, lambda *_: _ended("", "length"), lambda *_: AIMessage("Hello."))
    answer = await agent.ask(stream=stream)
    assert (answer.result, answer.degraded) == ("Hello.", ["model"])
    assert answer.usage.input_tokens == 2 * USAGE["input_tokens"]


async def test_a_tool_result_that_is_too_long_is_shortened(start_agent: Open) -> None:
    def answering(messages: list[BaseMessage], kwargs: dict[str, Any]) -> AIMessage:
        if not isinstance(messages[-1], ToolMessage):
            return _call("echo", text="word ", times=1000)
        return _raise(ContextOverflow("too long")) if len(messages[-1].text) > 2000 else AIMessage(messages[-1].text)

    agent, _ = _agent(start_agent, answering)
    answer = await agent.ask()
    assert (answer.degraded, answer.tool_calls[0].status) == (["memory"], "ok")
    assert "left out" in answer.result


async def test_after_an_overflow_a_model_that_reads_more_is_asked_first(start_agent: Open) -> None:
    agent, (_, second) = _agent(
        start_agent, lambda *_: _raise(ContextOverflow("x")), lambda *_: AIMessage("The large one.")
    )
    answer = await agent.ask()
    assert (answer.result, answer.degraded, len(second.requests)) == ("The large one.", ["model"], 1)


async def test_a_model_that_refuses_tools_answers_without(start_agent: Open) -> None:
    def answering(messages: list[BaseMessage], kwargs: dict[str, Any]) -> AIMessage:
        return _raise(ToolsRefused("x")) if kwargs.get("tools") else AIMessage("Plainly.")

    agent, _ = _agent(start_agent, answering)
    answer = await agent.ask()
    assert (answer.result, answer.degraded) == ("Plainly.", ["model"])


async def test_a_model_without_tools_answers_from_documents_that_are_searched_for_it(start_agent: Open) -> None:
    def answering(messages: list[BaseMessage], kwargs: dict[str, Any]) -> AIMessage:
        assert not kwargs.get("tools")
        assert not any(isinstance(each, ToolMessage) for each in messages)
        return AIMessage("It needs citric acid [1]." if "citric acid" in messages[0].text else "Nothing.")

    agent, _ = _agent(start_agent, answering, takes_tools=False, max_steps=1)
    answer = await agent.ask("how to descale?", stream=True)
    assert (answer.result, answer.status) == ("It needs citric acid [1].", "success")
    assert [each.source for each in answer.citations] == ["how to descale?1.md"]
    assert [each.name for each in answer.tool_calls] == ["knowledge_search"]


async def test_a_turn_that_failed_after_a_deed_leaves_a_session_that_is_answered(start_agent: Open) -> None:
    def answering(messages: list[BaseMessage], kwargs: dict[str, Any]) -> AIMessage:
        if messages[-1].text == "fail":
            return AIMessage(
                "",
                tool_calls=[{"id": "", "name": "pay", "args": {"text": "5"}}, {"id": "", "name": "Pa y!", "args": {}}],
            )
        return _raise(KeyRefused("x")) if isinstance(messages[-1], ToolMessage) else AIMessage("Hello.")

    agent, (provider,) = _agent(start_agent, answering)
    await agent.fail("fail")
    events = await agent.follow(context(), ChatRequest(user_input="hello", session_id="s"))
    answer = events[-1].data
    assert isinstance(answer, Answer)
    assert "5" in [each.text for each in provider.requests[-1] if isinstance(each, ToolMessage)]
