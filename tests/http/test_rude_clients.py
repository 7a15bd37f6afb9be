"""Clients that send or read slowly lose their place in time."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING

from http_fakes import answer
from http_service import Service, running

from serve_app.config import AccessSettings
from serve_app.http.middleware import body_limits
from serve_app.http.middleware.headers import ControlHeadersMiddleware
from serve_app.observability.metric_catalogue import RESPONSE_S
from serve_app.values import RunStarted, Token

if TYPE_CHECKING:
    import pytest

HEAD = "POST /agent/chat HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
BEGUN = HEAD.format(99).encode() + b"{"


async def test_of_many_bodies_that_drip_only_so_many_are_waited_for(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_limits, "SLOW_AFTER_S", 0.3)
    monkeypatch.setattr(body_limits, "MAX_SLOW_BODIES", 5)
    opened = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(20)]
    for _, writer in opened:
        writer.write(BEGUN)
    await asyncio.sleep(0.1)
    polite = await service.client.post("/agent/chat", json={"user_input": "hello", "session_id": "s1"})
    assert polite.status_code == 200
    begun = time.monotonic()
    answered = [asyncio.create_task(reader.readline()) for reader, _ in opened]
    await asyncio.wait(answered, timeout=1)
    done = [each.result() for each in answered if each.done()]
    assert time.monotonic() - begun < 2
    assert len(done) == 15
    assert all(line.startswith(b"HTTP/1.1 408") for line in done)
    for each in answered:
        each.cancel()
    for _, writer in opened:
        writer.close()


async def test_a_slow_body_among_few_has_its_time(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits, "SLOW_AFTER_S", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    body = b'{"user_input": "hello", "session_id": "s1"}'
    writer.write(HEAD.format(len(body)).encode() + body[:20])
    await asyncio.sleep(0.4)
    writer.write(body[20:])
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_of_many_bodies_that_are_refused_only_so_many_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, api_redis_url: str
) -> None:
    monkeypatch.setattr(body_limits, "LINGER_S", 1.5)
    monkeypatch.setattr(body_limits, "MAX_LINGERING", 5)
    async with running(Service(api_redis_url, access=AccessSettings())) as guarded:
        for _ in range(2):  # the places of the first are free again
            opened = [await asyncio.open_connection("127.0.0.1", guarded.port) for _ in range(20)]
            for _, writer in opened:
                writer.write(HEAD.format(1).encode())
            reading = [asyncio.create_task(reader.read()) for reader, _ in opened]
            closed, lingering = await asyncio.wait(reading, timeout=0.75)
            assert (len(closed), len(lingering)) == (15, 5)
            for each in asyncio.as_completed(reading, timeout=5):
                assert (await each).startswith(b"HTTP/1.1 401")
            for _, writer in opened:
                writer.close()


async def test_a_client_that_stops_reading_its_stream_is_given_up_and_the_run_goes_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_limits, "SEND_S", 0.3)
    service.agent.script = [RunStarted(run_id=""), *[Token(text="x" * 10_000)] * 1500, 0.5, answer()]
    with socket.create_connection(("127.0.0.1", service.port)) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = b'{"user_input": "hello", "session_id": "s1", "stream": true}'
        deaf.sendall(HEAD.format(len(body)).encode() + body)
        give_up = time.monotonic() + 8
        while not service.metrics.of(RESPONSE_S):
            assert time.monotonic() < give_up, "the place of a client that does not read is not given up"
            await asyncio.sleep(0.05)
        (run,) = service.agent.logs.values()
        async with asyncio.timeout(10):
            while not run.over:  # noqa: ASYNC110 - it goes on by itself
                await asyncio.sleep(0.05)
    assert run.events[-1].last


async def test_what_steers_serve_is_dropped_however_it_is_written() -> None:
    names = [
        b"x-request-timeout-seconds",
        b"X-Request-Disconnect-Disabled",
        b"x-session-id",
        b"x_session_id",
        b"serve_multiplexed_model_id",
        b"serve-multiplexed-model-id",
        b"x-request-id",
        b"content-type",
    ]
    passed: list[bytes] = []

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        passed.extend(name for name, _ in scope["headers"])

    scope = {"type": "http", "headers": [(name, b"1") for name in names]}
    await ControlHeadersMiddleware(app)(scope, None, None)  # type: ignore[arg-type]
    assert passed == [b"x-request-id", b"content-type"]
    assert len(scope["headers"]) == len(names)  # another's scope is not changed


def test_serve_reads_no_other_header_of_the_client() -> None:
    """What Serve reads in this version; a new one has to be judged."""
    from ray.serve._private import constants

    known = {constants.SERVE_MULTIPLEXED_MODEL_ID, constants.SERVE_SESSION_ID, constants.SERVE_HTTP_REQUEST_ID_HEADER}
    known |= {
        getattr(constants, name)
        for name in dir(constants)
        if name.startswith("SERVE_HTTP_REQUEST_") and name.endswith("_HEADER")
    }
    from serve_app.http.middleware.headers import CONTROL_HEADERS

    assert {name.replace("-", "_").encode() for name in known} - CONTROL_HEADERS == {b"x_request_id"}
