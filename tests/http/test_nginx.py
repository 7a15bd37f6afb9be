"""A real nginx with our configuration keeps strangers, steering headers and floods from the service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import nginx_edge
import pytest
from http_fakes import answer
from http_service import Service, empty, running
from listening import free_port
from nginx_edge import Edge, edge, upstreams

from serve_app.config import HttpSettings
from serve_app.observability.metric_catalogue import RESPONSES
from serve_app.values import RunStarted, Token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.long

TURN = {"user_input": "hello", "session_id": "s1"}
STRANGERS = "allow 192.0.2.1; deny all;"
CLOSED = ["/admin/sessions", "/metrics", "/readyz", "/docs", "/openapi.json"]
CLOSED += ["/agent/../admin/faults", "/agent/%2e%2e/admin/faults", "//admin/faults", "/%61dmin/faults"]
CANARY = """
split_clients $client_key $drawn_pool { 20% serve_app_canary; * serve_app; }
map "" $canary_pool { default serve_app_canary; }
"""


@pytest.fixture
async def behind(api_redis_url: str) -> AsyncIterator[Service]:
    """The service that nginx stands before, with its own limits far away."""
    async with running(Service(empty(api_redis_url), settings=HttpSettings())) as service:
        yield service


@pytest.fixture
def front(behind: Service, tmp_path: Path) -> Iterator[Edge]:
    with edge(tmp_path, {"upstreams.conf": upstreams([behind.port])}) as running_edge:
        yield running_edge


def _assert_error(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"code", "message", "retryable", "request_id", "reason"}
    assert error["code"] == code
    assert response.headers.get_list("x-request-id") == [error["request_id"]]
    assert response.headers["content-type"] == "application/json"
    assert response.headers["strict-transport-security"].startswith("max-age=")
    if status in {429, 502, 503, 504}:
        assert int(response.headers["retry-after"]) >= 1
        assert error["retryable"] is True


def test_the_shipped_configuration_is_valid(tmp_path: Path) -> None:
    nginx_edge.written(tmp_path, {})
    command = [nginx_edge.program(), "-t", "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error.log")]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stderr
    assert "warn" not in tried.stderr


async def test_a_turn_passes_and_plain_http_is_sent_to_tls(front: Edge, behind: Service) -> None:
    async with front.client(headers={"X-Request-Id": "mine"}) as client:
        answered = await client.post("/agent/chat", json=TURN)
    assert answered.json()["result"] == "hello"
    assert answered.headers.get_list("x-request-id") == ["mine"]
    assert answered.headers["strict-transport-security"] == "max-age=31536000"
    assert answered.headers.get_list("x-content-type-options") == ["nosniff"]
    async with httpx.AsyncClient(base_url=front.plain_url, trust_env=False) as plain:
        moved = await plain.post("/agent/chat?x=1", json=TURN)
        assert moved.status_code == 308
        assert moved.headers["location"] == "https://127.0.0.1/agent/chat?x=1"
        assert (await plain.get("/healthz")).status_code == 200
    assert " mine " in front.log
    assert "hello" not in front.log


def test_old_tls_is_refused(front: Edge) -> None:
    context = front.trusted
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    host, port = urlsplit(front.url).hostname or "", urlsplit(front.url).port or 0
    with socket.create_connection((host, port)) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(plain, server_hostname=host)


async def test_what_steers_serve_is_dropped_and_who_asks_is_told_truly(tmp_path: Path) -> None:
    requests: list[dict[str, str]] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")[1:]
        requests.append(dict(line.split(": ", 1) for line in lines if line))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    sent = {
        "X-Request-Timeout-Seconds": "0",
        "x_request_timeout_seconds": "0",
        "X-Request-Disconnect-Disabled": "?1",
        "X-Session-Id": "other",
        "X_Session_Id": "other",
        "serve_multiplexed_model_id": "m",
        "Serve-Multiplexed-Model-Id": "m",
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Proto": "gopher",
        "Forwarded": "for=203.0.113.7",
        "Authorization": "Bearer key",
        "Idempotency-Key": "k",
        "Last-Event-ID": "7",
        "X-Request-Id": "not valid!",
    }
    listener = await asyncio.start_server(hear, "127.0.0.1", 0)
    async with listener:
        with edge(tmp_path, {"upstreams.conf": upstreams([listener.sockets[0].getsockname()[1]])}) as front:
            async with front.client() as client:
                await client.get("/agent/runs/x", headers=sent)
    (passed,) = requests
    steering = [
        name for name in passed if "timeout" in name or "disconnect" in name or "session" in name or "model" in name
    ]
    assert steering == []
    assert passed["x-forwarded-for"] == "127.0.0.1"
    assert passed["x-forwarded-proto"] == "https"
    assert "forwarded" not in passed
    assert (passed["authorization"], passed["idempotency-key"], passed["last-event-id"]) == ("bearer key", "k", "7")
    assert len(passed["x-request-id"]) == 32


@pytest.mark.parametrize("path", CLOSED)
async def test_what_is_the_operators_is_closed_to_strangers(behind: Service, tmp_path: Path, path: str) -> None:
    site = {"upstreams.conf": upstreams([behind.port]), "operators.conf": STRANGERS}
    with edge(tmp_path, site) as front:
        head, body = (await _raw(front, f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).split(
            "\r\n\r\n", 1
        )
        assert head.startswith("HTTP/1.1 403")
        assert json.loads(body)["error"]["code"] == "forbidden"
        async with front.client() as client:
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/agent/sessions/s1")).status_code == 404


async def test_operators_come_in_and_serves_own_pages_are_closed_to_all(front: Edge) -> None:
    async with front.client() as client:
        assert (await client.get("/admin/sessions")).status_code == 200
        assert (await client.get("/docs")).status_code == 200
        _assert_error(await client.get("/-/routes"), 404, "not_found")


async def test_bodies_and_headers_are_bounded_with_the_error_body(front: Edge) -> None:
    json_type = {"Content-Type": "application/json"}
    async with front.client() as client:
        _assert_error(
            await client.post("/agent/chat", content=b"x" * 600_000, headers=json_type), 413, "body_too_large"
        )
        large = {"documents": [{"source": "a.md", "text": "x" * 10_000_000}]}
        assert (await client.post("/knowledge/documents", json=large)).status_code == 200
        _assert_error(await client.post("/knowledge/documents", content=b"x" * 17_000_000), 413, "body_too_large")
        _assert_error(await client.get("/healthz?" + "x" * 9_000), 414, "uri_too_long")
        _assert_error(await client.get("/healthz", headers={"X-Long": "x" * 9_000}), 431, "headers_too_large")
        many = {f"X-{number}": "1" for number in range(10_000)}
        _assert_error(await client.get("/healthz", headers=many), 431, "headers_too_large")
        passed = await client.get("/healthz", headers={f"X-{number}": "1" for number in range(200)})
        assert passed.json()["error"]["code"] == "headers_too_large"  # the service's own word
    assert "HTTP/1.1 400" in (answered := await _raw(front, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"))
    assert json.loads(answered.split("\r\n\r\n", 1)[1])["error"]["code"] == "malformed_request"
    async with httpx.AsyncClient(base_url=front.url.replace("https", "http"), trust_env=False) as confused:
        _assert_error(await confused.get("/healthz"), 400, "tls_required")


async def test_one_address_has_its_share_of_requests_and_of_connections(behind: Service, tmp_path: Path) -> None:
    limits = (nginx_edge.NGINX / "site" / "limits.conf").read_text(encoding="utf-8")
    limits = (
        limits.replace("rate=50r/s", "rate=1r/s")
        .replace("burst=100", "burst=5")
        .replace("connections 100", "connections 8")
    )
    with edge(tmp_path, {"upstreams.conf": upstreams([behind.port]), "limits.conf": limits}) as front:
        async with front.client() as client:
            answers = [await client.get("/agent/sessions/s1") for _ in range(12)]
        assert 6 <= sum(each.status_code == 404 for each in answers) <= 8
        for each in answers[-3:]:
            _assert_error(each, 429, "rate_limited")
    limits = limits.replace("burst=5", "burst=100")
    behind.agent.script = [RunStarted(run_id=""), 1.0, answer()]
    with edge(tmp_path / "second", {"upstreams.conf": upstreams([behind.port]), "limits.conf": limits}) as front:
        async with front.client() as client:
            received = await asyncio.gather(
                *(client.post("/agent/chat", json={**TURN, "session_id": f"s{n}"}) for n in range(12))
            )
    assert Counter(each.status_code for each in received) == {200: 8, 429: 4}


async def test_the_service_being_away_slow_or_full_is_told_with_the_error_body(tmp_path: Path) -> None:
    closed = free_port()
    with edge(tmp_path, {"upstreams.conf": upstreams([closed])}) as front:
        async with front.client() as client:
            _assert_error(await client.post("/agent/chat", json=TURN), 502, "unavailable")
    hurried = {"proxy_read_timeout 75s;": "proxy_read_timeout 1s;"}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        site = {"upstreams.conf": upstreams([silent.getsockname()[1]])}
        with edge(tmp_path / "second", site, hurried) as front:
            async with front.client() as client:
                _assert_error(await client.post("/agent/chat", json=TURN), 504, "deadline_exceeded")


async def test_a_stream_arrives_event_by_event(front: Edge, behind: Service) -> None:
    behind.agent.script = [RunStarted(run_id=""), *([Token(text="x"), 0.2] * 5), answer()]
    async with front.client() as client, client.stream("POST", "/agent/chat", json={**TURN, "stream": True}) as stream:
        tokens = (line async for line in stream.aiter_lines() if line.startswith("event: token"))
        came = [asyncio.get_running_loop().time() async for _ in tokens]
    assert len(came) == 5
    assert all(0.1 < later - earlier < 0.5 for earlier, later in pairwise(came))


async def test_a_node_that_is_away_is_stepped_over_and_a_turn_is_never_sent_twice(
    behind: Service, tmp_path: Path
) -> None:
    taken = 0

    async def take_and_die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        taken += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    closed = free_port()
    with edge(tmp_path, {"upstreams.conf": upstreams([closed, behind.port])}) as front:
        async with front.client() as client:
            answers = [await client.post("/agent/chat", json=TURN) for _ in range(10)]
    assert [each.status_code for each in answers] == [200] * 10
    listener = await asyncio.start_server(take_and_die, "127.0.0.1", 0)
    dying = listener.sockets[0].getsockname()[1]
    async with listener:
        with edge(tmp_path / "second", {"upstreams.conf": upstreams([dying, behind.port])}) as front:
            async with front.client() as client:
                posts = [(await client.post("/agent/chat", json=TURN)).status_code for _ in range(4)]
                gets = [(await client.get("/healthz")).status_code for _ in range(4)]
    assert sorted(set(posts)) == [200, 502], "a POST that a node took is not given to another one"
    assert gets == [200] * 4
    assert posts.count(502) <= taken
    assert len(behind.agent.received) == 10 + posts.count(200)


async def test_the_canary_has_its_share_and_a_client_stays_where_it_was_drawn(behind: Service, tmp_path: Path) -> None:
    async with running(Service(settings=HttpSettings())) as canary:
        canary.agent.script = [RunStarted(run_id=""), answer("canary")]
        limits = "# none\n"
        site = {"upstreams.conf": upstreams([behind.port], [canary.port]), "canary.conf": CANARY, "limits.conf": limits}
        with edge(tmp_path, site) as front:
            async with front.client() as client:
                drawn: dict[str, set[str]] = {}
                for number in range(400):
                    key = f"Bearer key-{number % 200}"
                    received = await client.post("/agent/chat", json=TURN, headers={"Authorization": key})
                    drawn.setdefault(key, set()).add(received.json()["result"])
                canary_answer = await client.post("/agent/chat", json=TURN, headers={"X-Variant": "canary"})
                stable_answer = await client.post("/agent/chat", json=TURN, headers={"X-Variant": "stable"})
    assert all(len(pools) == 1 for pools in drawn.values())
    share = sum(pools == {"canary"} for pools in drawn.values()) / len(drawn)
    assert 0.12 < share < 0.28
    assert (canary_answer.json()["result"], stable_answer.json()["result"]) == ("canary", "hello")


async def test_the_canary_is_off_as_shipped(behind: Service, tmp_path: Path) -> None:
    with edge(tmp_path, {"upstreams.conf": upstreams([behind.port], [free_port()])}) as front:
        async with front.client() as client:
            for number in range(60):
                headers = {"Authorization": f"Bearer {number}", "X-Variant": "canary"}
                assert (await client.post("/agent/chat", json=TURN, headers=headers)).status_code == 200


async def test_clients_that_drip_keep_no_place_of_the_service(front: Edge, behind: Service) -> None:
    dripping = [await asyncio.to_thread(_tls, front) for _ in range(60)]
    for each in dripping:
        each.sendall(b"POST /agent/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n{")
    await asyncio.sleep(0.3)
    async with front.client() as client:
        assert (await client.post("/agent/chat", json=TURN)).status_code == 200
    assert len(behind.agent.received) == 1
    for each in dripping:
        each.close()
    await asyncio.sleep(0.5)
    assert sum(behind.metrics.counted[RESPONSES].values()) == 1, "the service was told of a body that was not there"


def _tls(front: Edge) -> ssl.SSLSocket:
    host, port = urlsplit(front.url).hostname or "", urlsplit(front.url).port or 0
    return front.trusted.wrap_socket(socket.create_connection((host, port)), server_hostname=host)


async def _raw(front: Edge, request: str) -> str:
    """Exactly these characters on a connection of their own; everything that comes back."""

    def exchange() -> str:
        with _tls(front) as connection:
            connection.sendall(request.encode())
            connection.settimeout(5)
            received = b""
            with contextlib.suppress(TimeoutError):
                while piece := connection.recv(65536):
                    received += piece
            return received.decode()

    return await asyncio.to_thread(exchange)
