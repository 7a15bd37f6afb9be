"""HTTP tools: requests as the settings say, bounded responses. Against a real server."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from serve_app.config import HttpToolSettings, ToolSettings
from serve_app.resilience.tasks import cancel_and_wait
from serve_app.tools.registry import ToolRegistry, load_tools
from serve_app.values import Context, IdempotencyKey, ToolRequest, ToolResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEY = IdempotencyKey("run:0:0")
SCHEMA = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "page": {"type": "integer", "default": 1}, "tags": {"type": "array"}},
    "required": ["id"],
}


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """Answers every request with `answer`, the raw bytes of an HTTP response; hangs before it for `pause_s`."""

    port: int = 0
    answers: list[bytes] = field(default_factory=list)
    pause_s: float = 0
    requests: list[Request] = field(default_factory=list)
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.current_task()
        assert serving
        self.serving.add(serving)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = head[0].split(" ")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.requests.append(Request(method, path, headers, body))
            await asyncio.sleep(self.pause_s)
            writer.write(self.answers[min(len(self.requests), len(self.answers)) - 1])
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.serving.discard(serving)


def answer(body: bytes | str = "{}", status: str = "200 OK", kind: str = "application/json", **headers: str) -> bytes:
    raw = body.encode() if isinstance(body, str) else body
    given = {"content-length": str(len(raw)), "content-type": kind, "connection": "close"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


async def _served() -> AsyncIterator[Server]:
    server = Server(answers=[answer('{"state": "paid"}')])
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield server
        await cancel_and_wait(*server.serving)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async for each in _served():
        yield each


@pytest.fixture
async def other() -> AsyncIterator[Server]:
    async for each in _served():
        yield each


def _settings(url: str, tool: dict[str, Any] | None = None, **http: Any) -> ToolSettings:
    section = HttpToolSettings(url=url, **{"description": "Look up.", "parameters": SCHEMA, **http})
    return ToolSettings(http=section, **{"attempts": 1, **(tool or {})})


async def _call(
    settings: ToolSettings, arguments: dict[str, Any] | None = None, private: tuple[str, ...] = ("127.0.0.1",)
) -> ToolResult:
    registry = ToolRegistry({"it": settings}, [], private)
    context = Context(request_id="r", run_id="r", session_id="s", deadline=time.time() + 30)
    request = ToolRequest(id="c", name="it", arguments={"id": "a"} if arguments is None else arguments)
    try:
        return await registry.call(context, request, KEY)
    finally:
        await registry.close()


async def test_arguments_go_into_the_url_and_the_rest_into_the_query(server: Server) -> None:
    result = await _call(_settings(server.url + "/orders/{id}?x={page}"), {"id": "a/b c?订", "tags": ["p", "q"]})
    assert (result.content, result.status, result.attempts) == ('{"state": "paid"}', "ok", 1)
    (received,) = server.requests
    assert (received.method, received.path) == ("GET", "/orders/a%2Fb%20c%3F%E8%AE%A2?x=1&tags=p&tags=q")
    assert received.headers["host"] == f"127.0.0.1:{server.port}"
    assert received.headers["accept-encoding"] == "identity"
    assert "idempotency-key" not in received.headers


async def test_what_is_not_in_the_url_is_the_body_of_a_post(server: Server) -> None:
    await _call(_settings(server.url + "/orders/{id}", {"effect": "idempotent"}, method="POST"), {"id": "a", "page": 2})
    (received,) = server.requests
    assert (received.method, received.path, json.loads(received.body)) == ("POST", "/orders/a", {"page": 2})
    assert received.headers["idempotency-key"] == KEY


async def test_the_call_s_trace_is_passed_on(server: Server) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    registry = ToolRegistry({"it": _settings(server.url)}, [], ("127.0.0.1",))
    context = Context(request_id="r", run_id="r", session_id="s", deadline=time.time() + 30, traceparent=traceparent)
    await registry.call(context, ToolRequest(id="c", name="it", arguments={"id": "a"}), KEY)
    await registry.close()
    assert server.requests[0].headers["traceparent"] == traceparent


async def test_a_header_comes_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_TOKEN", "Bearer hunter2")
    await _call(_settings(server.url + "/{id}", headers_env={"Authorization": "ORDERS_TOKEN"}))
    assert server.requests[0].headers["authorization"] == "bearer hunter2"
    monkeypatch.delenv("ORDERS_TOKEN")
    _, problems = load_tools({"it": _settings(server.url + "/{id}", headers_env={"Authorization": "ORDERS_TOKEN"})}, [])
    assert problems["it"].where == "tools.it.http.headers_env.Authorization"


async def test_an_environments_proxy_and_a_servers_cookies_are_left_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server.answers = [answer(set_cookie="session=1")]
    registry = ToolRegistry({"it": _settings(server.url + "/{id}")}, [], ["127.0.0.1"])
    context = Context(request_id="r", run_id="r", session_id="s", deadline=time.time() + 30)
    for _ in range(2):
        result = await registry.call(context, ToolRequest(id="c", name="it", arguments={"id": "a"}), KEY)
        assert result.status == "ok"
    await registry.close()
    assert "cookie" not in server.requests[1].headers


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"id": 1},
        {"id": "a", "page": "x"},
        {"id": "a", "else": 1},
        {"id": ".."},
        {"id": "."},
        {"id": ""},
        {"id": "../b"},
    ],
)
async def test_wrong_arguments_go_back_to_the_model_and_nothing_is_asked(
    server: Server, arguments: dict[str, Any]
) -> None:
    result = await _call(_settings(server.url + "/orders/{id}/state"), arguments)
    assert (result.status, result.attempts, server.requests) == ("error", 0, [])
    assert result.content.startswith("error: wrong arguments for it: ")


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (answer("<html>", kind="image/png"), "image/png, is neither text nor JSON"),
        (answer("not json"), "not json"),
        (answer("[" * 990), "[" * 990),
        (answer(b"\x1f\x8b", content_encoding="gzip"), "compressed"),
        (answer("x" * 1001, kind="text/plain"), "x" * 1000 + "\n[… longer than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n" + b"x" * 200_000, "longer than 1000 bytes"),
        (answer(b"caf\xe9", kind="text/plain; charset=utf-8"), "caf\ufffd"),
        (answer("a", kind="text/plain; charset=none"), "a"),
        (answer("a\0b", kind="text/plain"), "a\ufffdb"),
    ],
)
async def test_an_answer_that_came_is_said_as_well_as_it_can_be(server: Server, given: bytes, what: str) -> None:
    unusable = ("neither text", "not json", "[" * 990, "compressed")
    for effect in ("effect",) if any(each in what for each in unusable) else ("pure", "effect"):
        server.answers = [given]
        settings = _settings(server.url + "/{id}", max_response_bytes=1000)
        result = await _call(settings.model_copy(update={"effect": effect, "attempts": 1}))
        assert (result.status, result.attempts) == ("ok", 1)
        assert what in result.content
        assert len(result.content) < 1100


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (answer("<html>", kind="image/png"), "neither text nor JSON"),
        (answer("not json"), "not the JSON that it says it is"),
        (answer("[" * 990), "not the JSON"),
        (answer(b"\x1f\x8b", content_encoding="gzip"), "compressed"),
    ],
)
async def test_an_answer_of_a_tool_that_only_looks_has_to_be_one(server: Server, given: bytes, what: str) -> None:
    server.answers = [given]
    result = await _call(_settings(server.url + "/{id}", max_response_bytes=1000))
    assert (result.status, result.attempts, what in result.content) == ("error", 1, True)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (answer("", "302 Found", location="http://169.254.169.254/latest"), "redirects to another place"),
        (answer("", "302 Found", location="https://127.0.0.1/"), "redirects to another place"),
        (answer("", "302 Found", location="/again"), "redirects again and again"),
    ],
)
async def test_a_redirect_that_leads_nowhere_is_an_error_and_of_an_effect_an_unknown_outcome(
    server: Server, given: bytes, what: str
) -> None:
    server.answers = [given]
    settings = _settings(server.url + "/{id}")
    result = await _call(settings)
    assert (result.status, result.attempts, what in result.content) == ("error", 1, True)
    assert len(server.requests) == (4 if "again" in what else 1)
    effect = settings.model_copy(update={"effect": "effect", "attempts": 1})
    assert (await _call(effect)).status == "unknown"


async def test_an_effect_whose_answer_breaks_off_is_done(server: Server) -> None:
    server.answers = [b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 99\r\n\r\npaid"]
    settings = _settings(server.url + "/{id}").model_copy(update={"effect": "effect", "attempts": 1})
    result = await _call(settings)
    assert (result.status, result.content.splitlines()[0]) == ("ok", "paid")
    assert "the connection broke" in result.content


async def test_a_redirect_within_the_origin_is_followed(server: Server) -> None:
    server.answers = [answer("", "307 Temporary Redirect", location="/moved"), answer('"there"')]
    assert (await _call(_settings(server.url + "/{id}", method="POST"))).content == '"there"'
    assert [(each.method, each.path) for each in server.requests] == [("POST", "/a"), ("POST", "/moved")]


async def test_an_endless_answer_is_cut_in_time() -> None:
    ended = asyncio.Event()

    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
        try:
            while True:
                writer.write(b".")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            writer.close()
            ended.set()

    listening = await asyncio.start_server(dribble, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        begun = time.monotonic()
        result = await _call(_settings(f"http://127.0.0.1:{port}/{{id}}", {"timeout_s": 0.3}))
        assert (result.status, result.attempts) == ("timeout", 1)
        assert time.monotonic() - begun < 2
        await asyncio.wait_for(ended.wait(), 5)


async def test_the_models_error_is_the_servers_answer(server: Server, other: Server) -> None:
    server.answers = [answer('{"detail": "no such order"}', "404 Not Found")]
    result = await _call(_settings(server.url + "/{id}", {"attempts": 2}, standby_url=other.url + "/{id}"))
    assert (result.status, result.attempts, len(server.requests), len(other.requests)) == ("error", 1, 1, 0)
    assert result.content == 'error: it answered 404: {"detail": "no such order"}'


async def test_the_standby_is_called_after_a_server_error_without_a_retry(server: Server, other: Server) -> None:
    standby = other.url + "/other/{id}"
    for status in ("500 Internal Server Error", "503 Unavailable", "429 Too Many Requests"):
        server.answers, server.requests, other.requests = [answer("secret trace", status, "text/plain")], [], []
        result = await _call(_settings(server.url + "/{id}", {"attempts": 2}, standby_url=standby))
        assert (result.status, result.attempts, len(server.requests)) == ("standby", 2, 1), status
        assert (result.content, [each.path for each in other.requests]) == ('{"state": "paid"}', ["/other/a?page=1"])


async def test_a_server_error_is_retried_if_the_settings_name_it(server: Server) -> None:
    server.answers = [answer("secret trace", "500 Internal Server Error", "text/plain")]
    result = await _call(_settings(server.url + "/{id}", {"attempts": 2, "retry_on": ["server_error"]}))
    assert (result.status, result.attempts, len(server.requests)) == ("error", 2, 2)
    assert "secret" not in result.content


async def test_a_server_that_is_down_or_slow_or_cuts_is_stood_in_for(server: Server, other: Server) -> None:
    for url, pause_s, given in [
        ("http://127.0.0.1:9", 0.0, answer()),
        (server.url, 5.0, answer()),
        (server.url, 0.0, b""),
        (server.url, 0.0, b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\ncontent-type: text/plain\r\n\r\nhalf"),
    ]:
        server.pause_s, server.answers, other.requests = pause_s, [given], []
        settings = _settings(url + "/{id}", {"timeout_s": 0.2}, standby_url=other.url + "/{id}")
        result = await _call(settings)
        assert (result.status, result.attempts, len(other.requests)) == ("standby", 2, 1), (url, pause_s, given)


async def test_each_endpoint_has_a_breaker_of_its_own(server: Server, other: Server) -> None:
    server.answers = [answer("", "500 Oh")]
    settings = _settings(
        server.url + "/{id}", {"breaker": {"failures": 2, "cool_down_s": 60}}, standby_url=other.url + "/{id}"
    )
    registry = ToolRegistry({"it": settings}, [], ["127.0.0.1"])
    context = Context(request_id="r", run_id="r", session_id="s", deadline=time.time() + 30)
    for attempts in (2, 2, 1, 1):
        result = await registry.call(context, ToolRequest(id="c", name="it", arguments={"id": "a"}), KEY)
        assert (result.status, result.attempts) == ("standby", attempts)
    await registry.close()
    assert (len(server.requests), len(other.requests)) == (2, 4)


async def test_a_private_address_is_refused_unless_it_is_listed(server: Server) -> None:
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1"):
        url = f"http://{host}:{server.port}/{{id}}"
        result = await _call(_settings(url), private=())
        assert (result.status, result.attempts, server.requests) == ("error", 1, [])
        assert "its address is not allowed" in result.content
    url = f"http://localhost:{server.port}/{{id}}"
    assert (await _call(_settings(url), private=("localhost:1",))).status == "error"
    assert (await _call(_settings(url), private=(f"localhost:{server.port}",))).status == "ok"
    assert server.requests[0].headers["host"] == f"localhost:{server.port}"


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/{id}", "http://0.0.0.0/{id}", "http://[::ffff:169.254.169.254]/{id}"]
)
async def test_the_machines_credentials_are_refused_even_if_they_are_listed(url: str) -> None:
    result = await _call(_settings(url), private=("169.254.169.254", "0.0.0.0", "[::ffff:169.254.169.254]"))
    assert (result.status, "not allowed" in result.content) == ("error", True)


@pytest.mark.parametrize(
    ("http", "what"),
    [
        ({"parameters": {"type": "objekt"}}, "not a JSON schema"),
        ({"parameters": {"type": "string"}}, "not the schema of an object"),
        ({"parameters": {"type": "object", "properties": {"id": {}}}}, "{id} stands in the URL, but is no required"),
        ({"standby_url": "http://h/{other}"}, "{other} stands in the URL, but is no required"),
    ],
)
def test_a_schema_that_does_not_fit_the_url_is_a_problem(http: dict[str, Any], what: str) -> None:
    lines, problems = load_tools({"it": _settings("http://h/{id}", **http)}, [])
    assert lines == {}
    assert problems["it"].where == "tools.it.http.parameters"
    assert what in problems["it"].what


def test_the_model_is_told_the_schema_and_no_more_than_it() -> None:
    lines, _ = load_tools({"it": _settings("http://h/{id}")}, [])
    spec = lines["it"].spec
    assert (spec.description, spec.parameters) == ("Look up.", {**SCHEMA, "additionalProperties": False})
