"""The trace of a turn: one for LangSmith and OpenTelemetry, over all of its processes."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import langsmith as langsmith_package
import pytest
from agent_process import Broken, context, dying_store, killed, reply
from collectors import Collector, DroppedSpans, langsmith, otlp, silent, unreachable
from langchain_core.tracers.langchain import wait_for_all_tracers

from serve_app.agent import tool_dispatch
from serve_app.config import ModelSettings, ObservabilitySettings
from serve_app.llm.models import build_model
from serve_app.observability import tracing
from serve_app.observability.redaction import Redactor
from serve_app.observability.traceparent import root_span_id
from serve_app.observability.tracing import create_tracer
from serve_app.values import ChatRequest, TurnRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent_process import AgentProcess
    from stub_server import Stub

    from serve_app.ports import Tracer
    from serve_app.values import Context

    Open = Callable[..., AgentProcess]

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
CALLING = reply("", ("echo", {"text": "x"}), ("knowledge_search", {"query": "kettle"}))
WHOLE = (
    "serve_app",
    (
        ("memory.read", ()),
        ("step 1", (("m0", ()), ("m1", ()))),
        ("echo", ()),
        ("knowledge_search", ()),
        ("step 2", (("m0", ()),)),
        ("memory.write", ()),
    ),
)
"""A turn whose first step a fallback made."""
STREAMING = pytest.mark.parametrize("stream", [False, True])


@dataclass
class Sinks:
    """Both collectors, and the tracers that tell them."""

    langsmith: Collector
    otlp: Collector
    dropped: DroppedSpans = field(default_factory=DroppedSpans)
    tracers: list[Tracer] = field(default_factory=list)

    def tracer(self, share: float = 1, *patterns: str) -> Tracer:
        made = create_tracer(
            ObservabilitySettings(trace_sampling=share), Redactor.from_patterns(patterns), self.dropped
        )
        self.tracers.append(made)
        return made

    async def flush(self) -> None:
        """Wait until every span is exported."""
        for each in self.tracers:
            await each.shutdown()


@pytest.fixture
def sinks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sinks]:
    with langsmith() as one, otlp() as other:
        monkeypatch.setenv("LANGSMITH_TRACING", "true")
        monkeypatch.setenv("LANGSMITH_ENDPOINT", one.url)
        monkeypatch.setenv("LANGSMITH_API_KEY", "lsv2-key")
        monkeypatch.setenv("LANGSMITH_PROJECT", "agent")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", other.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc")
        with _environment_read_anew():
            yield Sinks(one, other)


class _environment_read_anew:  # noqa: N801 - a context manager
    """LangSmith remembers what it has read of the environment, and that LangChain's tracing was switched off."""

    def __enter__(self) -> None:
        langsmith_package.utils.get_env_var.cache_clear()

    def __exit__(self, *_: Any) -> None:
        langsmith_package.utils.get_env_var.cache_clear()
        langsmith_package.configure(enabled=None)


def _traced_context(traceparent: str = "") -> Context:
    return context().model_copy(update={"traceparent": traceparent})


def _request(*, stream: bool = False) -> ChatRequest:
    return ChatRequest(user_input="hello", session_id="s", stream=stream)


@STREAMING
@pytest.mark.parametrize("traceparent", ["", CALLER], ids=["begun here", "of the caller"])
async def test_a_turn_with_a_tool_a_search_and_a_fallback_is_one_tree_in_both_places(
    start_agent: Open, sinks: Sinks, traceparent: str, *, stream: bool
) -> None:
    turn_context = _traced_context(traceparent)
    agent = start_agent(Broken(""), reply("Done [1]."), fallback=[CALLING], tracer=sinks.tracer())
    await agent.follow(turn_context, _request(stream=stream))
    await sinks.flush()
    assert sinks.langsmith.shape() == sinks.otlp.shape() == WHOLE
    assert sinks.langsmith.traces() == {str(UUID(turn_context.run_id))}
    assert sinks.otlp.traces() == {CALLER.split("-")[1] if traceparent else turn_context.run_id}
    assert {UUID(each.id).hex[:16] for each in sinks.langsmith.spans} == {each.id for each in sinks.otlp.spans}
    assert sinks.otlp.span_of("serve_app").parent == (CALLER.split("-")[2] if traceparent else None)
    assert not sinks.dropped.counted


async def test_langchain_tells_nothing_of_its_own(start_agent: Open, sinks: Sinks) -> None:
    turn_context = _traced_context()
    await start_agent(reply("Done."), fallback=[], tracer=sinks.tracer()).follow(turn_context, _request())
    await sinks.flush()
    await asyncio.to_thread(wait_for_all_tracers)
    assert sinks.langsmith.traces() == {str(UUID(turn_context.run_id))}
    assert len(sinks.langsmith.bodies) == 1


@STREAMING
async def test_each_try_of_a_real_endpoint_is_a_span_with_its_tokens_or_its_error(
    start_agent: Open, sinks: Sinks, stub: Stub, *, stream: bool
) -> None:
    names = [f"primary-{uuid4().hex}", f"fallback-{uuid4().hex}"]
    stub.moods[names[0]], stub.moods[names[1]] = ["broken@0"] * 9, ["well"] * 9
    models = [{"name": f"openai:{name}", "base_url": stub.url} for name in names]
    chain = build_model(ModelSettings.model_validate({**models[0], "fallbacks": models[1:]}))
    await start_agent(fallback=chain, tracer=sinks.tracer()).follow(_traced_context(), _request(stream=stream))
    await sinks.flush()
    step = [(names[0], ()), (names[0], ()), (names[1], ())]
    assert sinks.langsmith.shape() == sinks.otlp.shape()
    assert [inner for name, inner in sinks.otlp.shape()[1] if name.startswith("step")] == [tuple(step)] * 2
    tries = [each for each in sinks.otlp.spans if each.name in names]
    assert [each.fields.get("gen_ai.usage.input_tokens") for each in tries] == [None, None, 11] * 2
    assert [each.error[:16] for each in tries] == ["ModelUnavailable", "ModelUnavailable", ""] * 2
    assert {each.fields["gen_ai.provider.name"] for each in tries} == {"openai"}
    assert b"provider's own words" not in b"".join([*sinks.otlp.bodies, *sinks.langsmith.bodies])


@STREAMING
async def test_the_spans_tell_of_models_tokens_fallbacks_tools_and_passages(
    start_agent: Open, sinks: Sinks, *, stream: bool
) -> None:
    agent = start_agent(Broken(""), reply("Done [1]."), fallback=[CALLING], tracer=sinks.tracer())
    await agent.follow(_traced_context(), _request(stream=stream))
    await sinks.flush()
    tree = sinks.otlp
    failed = next(each for each in tree.spans if each.name == "m0" and each.error)
    assert failed.error.startswith("ModelUnavailable")
    model = tree.span_of("m1").fields
    assert model["gen_ai.operation.name"] == "chat"
    assert (model["gen_ai.request.model"], model["serve_app.fallback"], model["serve_app.attempt"]) == ("m1", True, 1)
    assert (model["gen_ai.usage.input_tokens"], model["gen_ai.usage.output_tokens"]) == (10, 2)
    parts = json.loads(model["gen_ai.output.messages"])[0]["parts"]
    assert [(each["type"], each["name"]) for each in parts if each["type"] == "tool_call"] == [
        ("tool_call", "echo"),
        ("tool_call", "knowledge_search"),
    ]
    tool = tree.span_of("echo").fields
    assert (tool["gen_ai.operation.name"], tool["gen_ai.tool.name"]) == ("execute_tool", "echo")
    assert json.loads(tool["gen_ai.tool.call.arguments"]) == {"text": "x"}
    assert (tool["gen_ai.tool.call.result"], tool["serve_app.attempts"]) == ("x", 1)
    search = tree.span_of("knowledge_search").fields
    assert (search["gen_ai.operation.name"], search["serve_app.passages"]) == ("retrieval", 2)
    root = tree.span_of("serve_app").fields
    assert (root["gen_ai.operation.name"], root["gen_ai.conversation.id"]) == ("invoke_agent", "s")
    assert (root["serve_app.status"], root["serve_app.degraded"], root["service.name"]) == (
        "degraded",
        ["model"],
        "serve_app",
    )


async def test_langsmith_is_told_the_thread_the_tags_and_the_tokens_under_its_own_names(
    start_agent: Open, sinks: Sinks
) -> None:
    turn_context = _traced_context()
    agent = start_agent(Broken(""), reply("Done [1]."), fallback=[CALLING], tracer=sinks.tracer())
    await agent.follow(turn_context, _request())
    await sinks.flush()
    root = sinks.langsmith.span_of("serve_app").fields
    assert (root["run_type"], root["session_name"], root["tags"]) == ("chain", "agent", ["degraded", "model"])
    assert root["inputs"] == {"input": "hello"}
    assert root["outputs"] == {"output": "Done [1]."}
    assert {each.fields["extra"]["metadata"]["session_id"] for each in sinks.langsmith.spans} == {"s"}
    assert root["extra"]["metadata"]["run_id"] == turn_context.run_id
    model = sinks.langsmith.span_of("m1").fields
    assert model["run_type"] == "llm"
    assert model["outputs"]["usage_metadata"] == {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}
    assert [each["role"] for each in model["inputs"]["messages"]] == ["system", "user"]
    kinds = {each.name: each.fields["run_type"] for each in sinks.langsmith.spans}
    assert (kinds["echo"], kinds["knowledge_search"]) == ("tool", "retriever")
    assert sinks.langsmith.headers[0]["x-api-key"] == "lsv2-key"
    assert sinks.otlp.headers[0]["authorization"] == "Bearer abc"


async def test_a_turn_without_a_conversation_is_told_without_one(start_agent: Open, sinks: Sinks) -> None:
    agent = start_agent(reply("Done."), tracer=sinks.tracer())
    await agent.follow(context(session=""), TurnRequest(user_input="hello"))
    await sinks.flush()
    assert "session_id" not in sinks.langsmith.span_of("serve_app").fields["extra"]["metadata"]
    assert "gen_ai.conversation.id" not in sinks.otlp.span_of("serve_app").fields


async def test_a_run_that_another_process_takes_over_is_the_same_trace(start_agent: Open, sinks: Sinks) -> None:
    turn_context = _traced_context(CALLER)
    first = start_agent(CALLING, store=dying_store(4), tracer=sinks.tracer())
    assert await killed(first, turn_context, _request())
    second = start_agent(reply("Done [1]."), tracer=sinks.tracer())
    await second.follow(turn_context, _request(), after=4)
    await sinks.flush()
    assert sinks.otlp.traces() == {CALLER.split("-")[1]}
    assert sinks.langsmith.shape() == sinks.otlp.shape()
    root = sinks.otlp.span_of("serve_app")
    assert (root.id, root.parent) == (root_span_id(turn_context.run_id), CALLER.split("-")[2])
    assert (root.fields["serve_app.recovered"], root.fields["serve_app.events_before"]) == (True, 4)
    assert [each.name for each in sinks.otlp.spans if each.name.startswith("step")] == ["step 2"]


async def test_tools_are_told_the_trace_and_the_span_of_their_call(start_agent: Open, sinks: Sinks) -> None:
    agent = start_agent(reply("", ("echo", {"text": "x"})), reply("Done."), tracer=sinks.tracer())
    await agent.follow(_traced_context(CALLER), _request())
    await sinks.flush()
    assert agent.tools.traceparents == [f"00-{CALLER.split('-')[1]}-{sinks.otlp.span_of('echo').id}-01"]


async def test_without_tracing_tools_are_told_the_caller_s_trace(start_agent: Open) -> None:
    turn_context = _traced_context()
    agent = start_agent(*[reply("", ("echo", {"text": "x"})), reply("Done.")] * 2)
    await agent.follow(turn_context, _request())
    await agent.follow(_traced_context(CALLER), _request())
    assert agent.tools.traceparents == [f"00-{turn_context.run_id}-{root_span_id(turn_context.run_id)}-00", CALLER]


@pytest.mark.parametrize(
    ("replies", "end"),
    [([Broken("")], "failed"), ([reply("", ("gone", {})), reply("Sorry.")], "degraded"), ([reply("Hi.")], "success")],
    ids=["failed", "degraded", "success"],
)
async def test_of_the_turns_that_are_not_sampled_those_that_failed_or_lacked_something_are_told(
    start_agent: Open, sinks: Sinks, monkeypatch: pytest.MonkeyPatch, replies: list[Any], end: str
) -> None:
    monkeypatch.setattr(tool_dispatch, "FAILOVER_PAUSES_S", (0.01,))
    await start_agent(*replies, tracer=sinks.tracer(share=0)).follow(_traced_context(CALLER), _request())
    await sinks.flush()
    statuses = [each.fields["serve_app.status"] for each in sinks.otlp.spans if each.name == "serve_app"]
    assert statuses == ([] if end == "success" else [end])


async def test_a_turn_whose_caller_keeps_the_trace_is_kept(start_agent: Open, sinks: Sinks) -> None:
    sampled = CALLER.removesuffix("00") + "01"
    await start_agent(reply("Hi."), tracer=sinks.tracer(share=0)).follow(_traced_context(sampled), _request())
    await sinks.flush()
    assert sinks.otlp.span_of("serve_app").parent == CALLER.split("-")[2]


async def test_a_turn_that_a_client_ends_is_told_as_cancelled(start_agent: Open, sinks: Sinks) -> None:
    turn_context = _traced_context()
    agent = start_agent(tracer=sinks.tracer())
    following = asyncio.create_task(agent.follow(turn_context, _request()))
    await asyncio.wait_for(agent.model.hanging.wait(), 5)
    agent.worker._executions[turn_context.run_id].stop("ended")
    await asyncio.wait_for(following, 5)
    await sinks.flush()
    assert sinks.otlp.span_of("serve_app").error == "cancelled"
    assert sinks.langsmith.shape() == sinks.otlp.shape()


async def test_nothing_that_is_to_be_redacted_is_told(
    start_agent: Open, sinks: Sinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_dispatch, "FAILOVER_PAUSES_S", (0.01,))
    call = ("echo", {"text": "PLANTED-2", "PLANTED-3": ["PLANTED-4"], "number": 13800138000})
    replies = [reply("PLANTED-5", call), reply("", ("PLANTED-6", {})), reply("PLANTED-7"), Broken("PLANTED-8")]
    agent = start_agent(*replies, tracer=sinks.tracer(1, "PLANTED"))
    for stream in (False, True):
        request = ChatRequest(user_input="PLANTED-1", session_id="s", stream=stream)
        await agent.follow(_traced_context(), request)
    await sinks.flush()
    for collector in (sinks.langsmith, sinks.otlp):
        written = b"".join(collector.bodies)
        assert b"[redacted]-1" in written
        assert b"[redacted]-5" in written
        assert b"PLANTED" not in written
        assert b"13800138000" not in written


async def test_what_a_tool_marks_as_sensitive_is_told_nowhere_in_the_trace(start_agent: Open, sinks: Sinks) -> None:
    call = ("echo", {"text": "my words", "pin": "4-8-15-16"})
    replies = [reply("I use 4-8-15-16.", call), reply("Done with 4-8-15-16.")]
    agent = start_agent(*replies, *replies, tracer=sinks.tracer())
    agent.tools.sensitive.add("pin")
    for stream in (False, True):
        await agent.follow(_traced_context(), ChatRequest(user_input="It is 4-8-15-16", session_id="s", stream=stream))
    await sinks.flush()
    for collector in (sinks.langsmith, sinks.otlp):
        written = b"".join(collector.bodies)
        assert b"my words" in written
        assert b"4-8-15-16" not in written


@pytest.fixture(params=["unreachable", "silent"])
def away(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with silent() as url:
        address = url if request.param == "silent" else unreachable()
        monkeypatch.setenv("LANGSMITH_TRACING", "true")
        monkeypatch.setenv("LANGSMITH_ENDPOINT", address)
        monkeypatch.setenv("LANGSMITH_API_KEY", "key")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        with _environment_read_anew():
            yield


@pytest.mark.usefixtures("away")
async def test_a_sink_that_is_away_delays_no_turn_and_no_shutdown(
    start_agent: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "SHUTDOWN_S", 0.3)
    dropped = DroppedSpans()
    made = create_tracer(ObservabilitySettings(), Redactor(), dropped)
    agent = start_agent(*[reply(f"{n}") for n in range(20)], tracer=made)
    begun = time.monotonic()
    for _ in range(20):
        await agent.ask()
    assert time.monotonic() - begun < 8
    begun = time.monotonic()
    await made.shutdown()
    assert time.monotonic() - begun < 8, "the collectors answer after 10 s or never"
    spans_of_a_turn = 4
    assert dropped.counted == {"langsmith": 20 * spans_of_a_turn, "otlp": 20 * spans_of_a_turn}
