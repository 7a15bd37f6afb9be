"""Whatever a model, a tool or a client says, the answer is valid and no 500."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
from http_service import Service
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.config import HttpSettings
from serve_app.http.errors import STATUS_BY_CODE
from serve_app.values import (
    Answer,
    Citation,
    EventData,
    Exchange,
    Failed,
    Failure,
    Message,
    RunStarted,
    Token,
    ToolCall,
    ToolRequest,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

EXAMPLES = settings(max_examples=60, deadline=None)
ODD = st.text(st.characters(categories=["L", "N", "P", "Cs", "Cc", "Zl", "Co"]), max_size=8)
NUMBERS = st.one_of(st.integers(), st.floats(), st.just(10**400))
THINGS = st.recursive(
    st.one_of(ODD, NUMBERS, st.none(), st.binary(max_size=3), st.builds(object)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD, inner, max_size=3),
    max_leaves=5,
)
ARGUMENTS = st.dictionaries(ODD, THINGS, max_size=3)
CALLS = st.builds(
    ToolCall,
    name=ODD,
    arguments=ARGUMENTS,
    status=st.sampled_from(["ok", "error", "unknown"]),
    attempts=st.integers(0, 3),
    elapsed_ms=st.floats(),
)
STEPS = st.one_of(
    st.builds(Token, text=ODD, restart=st.booleans()),
    st.builds(ToolRequest, id=ODD, name=ODD, arguments=ARGUMENTS),
    CALLS,
)
ANSWERS = st.builds(
    Answer,
    result=ODD,
    session_id=st.just("s"),
    run_id=st.just(""),
    status=st.sampled_from(["success", "degraded"]),
    degraded=st.lists(ODD, max_size=2),
    citations=st.lists(st.builds(Citation, source=ODD, title=ODD, passage=ODD, score=st.floats()), max_size=2),
    tool_calls=st.lists(CALLS, max_size=2),
    usage=st.builds(Usage, input_tokens=st.integers(), output_tokens=st.integers()),
    model=ODD,
)
FAILURES = st.builds(
    Failed,
    error=st.builds(
        Failure,
        code=st.sampled_from(sorted(code for code, status in STATUS_BY_CODE.items() if status != 500)),
        message=ODD,
        retryable=st.booleans(),
        request_id=ODD,
        retry_after_s=st.none() | st.floats() | st.integers(),
    ),
)
CHAT = {"user_input": "hello", "session_id": "s"}
COMPLETION = {"model": "serve_app", "messages": [{"role": "user", "content": "hello"}]}
ASKING = [
    ("/agent/chat", CHAT),
    ("/agent/chat", {**CHAT, "stream": True}),
    ("/v1/chat/completions", COMPLETION),
    ("/v1/chat/completions", {**COMPLETION, "stream": True, "stream_options": {"include_usage": True}}),
]


SERVICE = Service(settings=HttpSettings())
API = SERVICE.api
"""Made once: an API takes a tenth of a second."""


def run_talk(talk: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    """Have the talk with the API, in which no exception may come out of the application."""

    async def talking() -> None:
        transport = httpx.ASGITransport(app=API)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=10) as client:
            await talk(client)

    asyncio.run(talking())


def strict(text: str) -> Any:
    """The JSON in a text, without what JSON does not know."""

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    text.encode()
    return json.loads(text, parse_constant=refuse)


def frames(body: str) -> list[Any]:
    data = [line.removeprefix("data: ") for line in body.split("\n") if line.startswith("data: ")]
    return [strict(each) for each in data if each != "[DONE]"]


@EXAMPLES
@given(st.lists(STEPS, max_size=3), st.one_of(ANSWERS, FAILURES))
def test_whatever_a_model_or_a_tool_says_is_told(steps: list[EventData], last: EventData) -> None:
    for path, body in ASKING:
        SERVICE.agent.script = [RunStarted(run_id=""), *steps, last]

        async def talk(client: httpx.AsyncClient, path: str = path, body: dict[str, Any] = body) -> None:
            response = await client.post(path, json=body)
            assert response.status_code != 500, response.text
            events = frames(response.text) if response.headers["Content-Type"].startswith("text/event-stream") else None
            assert events or strict(response.text)
            if isinstance(last, Answer):
                assert response.status_code == 200

        run_talk(talk)


@EXAMPLES
@given(ODD, ARGUMENTS)
def test_whatever_a_conversation_holds_is_listed(text: str, arguments: dict[str, Any]) -> None:
    call = ToolRequest(id=text, name=text, arguments=arguments)
    message = Message(role="assistant", content=text, tool_calls=[call])
    SERVICE.agent.exchanges["s"] = [Exchange(run_id="r", at=1, user_id=text, messages=[message])]

    async def talk(client: httpx.AsyncClient) -> None:
        response = await client.get("/agent/sessions/s")
        assert response.status_code == 200
        strict(response.text)

    run_talk(talk)


FIELDS = [*CHAT, *COMPLETION, "stream", "role", "content", "metadata"]
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, ODD),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*CHAT, *COMPLETION, "stream", "role", "content", "metadata"]) | ODD, inner, max_size=4
        )
    ),
    max_leaves=10,
)
BODIES = st.one_of(
    st.binary(max_size=40),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.builds(lambda text: json.dumps({**CHAT, "user_input": text}).encode(), ODD),
    st.builds(lambda text: json.dumps({**COMPLETION, "user": text, "metadata": {text: text}}).encode(), ODD),
    st.builds(lambda text: json.dumps({"documents": [{"source": text, "title": text, "text": text}]}).encode(), ODD),
    st.builds(lambda text: json.dumps({"run_id": "r", "rating": "up", "comment": text}).encode(), ODD),
)
PATHS = st.sampled_from(
    [
        "/agent/chat",
        "/v1/chat/completions",
        "/v1/models/{}",
        "/agent/runs/{}",
        "/agent/runs/{}/events",
        "/agent/runs/{}/cancel",
        "/agent/sessions/{}",
        "/knowledge/documents",
        "/knowledge/documents/{}",
        "/agent/feedback",
        "/admin/sessions",
        "/admin/keys",
        "/admin/keys/{}",
        "/admin/tenants/{}",
        "/admin/faults",
        "/admin/runs/{}/logs",
        "/{}",
    ]
)
NAMES = ("limit", "offset", "rating", "target")
BYTES = st.binary(max_size=6)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("Idempotency-Key", "Last-Event-ID", "X-Request-Id", "Prefer", "Cache-Control", "traceparent", "Accept"),
            *("Authorization", "X-Forwarded-For", "Origin", "Content-Type"),
        ]
    ),
    st.binary(min_size=1, max_size=8).map(lambda value: value.translate(None, b"\r\n\0")),
    max_size=4,
)


def percent(value: bytes) -> str:
    return "".join(f"%{byte:02X}" for byte in value)


METHODS = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE"])
REQUESTS = st.builds(
    lambda method, path, place, query, sent: httpx.Request(
        method,
        f"http://test{path.format(percent(place) or 'x')}?{query[0]}={percent(query[1])}",
        content=sent[0],
        headers={"Content-Type": b"application/json", **sent[1]},
    ),
    METHODS,
    PATHS,
    BYTES,
    st.tuples(st.sampled_from(NAMES), BYTES),
    st.tuples(BODIES, HEADERS),
)


@settings(max_examples=300, deadline=None)
@given(REQUESTS)
def test_whatever_a_client_sends_is_answered(request: httpx.Request) -> None:
    SERVICE.agent.script = None

    async def talk(client: httpx.AsyncClient) -> None:
        response = await client.send(request)
        assert response.status_code != 500, response.text
        if response.headers.get("Content-Type", "").startswith("application/json"):
            strict(response.text)

    run_talk(talk)
