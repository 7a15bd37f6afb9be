"""A body over the limit is refused before it is read, and the client gets the refusal."""

from __future__ import annotations

import asyncio
import json

import pytest

from serve_app.http.middleware import body_limits

LIMIT = 8192


def _assert_too_large(response, limit: int = LIMIT) -> None:
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"
    assert str(limit) in response.json()["error"]["message"]
    assert response.headers["connection"] == "close"
    assert len(response.headers.get_list("x-request-id")) == 1


def _body(size: int) -> bytes:
    empty = json.dumps({"user_input": "", "session_id": "s1"}).encode()
    return empty.replace(b'""', b'"' + b"x" * (size - len(empty)) + b'"')


async def _pieces(body: bytes):
    for start in range(0, len(body), 1000):
        yield body[start : start + 1000]


@pytest.mark.parametrize("size", [LIMIT + 1, 1_000_000, 20_000_000])
@pytest.mark.parametrize("path", ["/agent/chat", "/nowhere"])
async def test_a_declared_body_over_the_limit_is_refused_and_the_refusal_arrives(service, size, path):
    for _ in range(3):  # a reset connection would lose some
        _assert_too_large(
            await service.client.post(path, content=_body(size), headers={"Content-Type": "application/json"})
        )


async def test_a_chunked_body_is_counted(service):
    headers = {"Content-Type": "application/json"}
    _assert_too_large(await service.client.post("/agent/chat", content=_pieces(_body(300_000)), headers=headers))
    fits = await service.client.post("/agent/chat", content=_pieces(_body(LIMIT)), headers=headers)
    assert fits.status_code == 200


async def test_a_body_at_the_limit_is_taken(service):
    response = await service.client.post(
        "/agent/chat", content=_body(LIMIT), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 200


async def test_documents_have_a_limit_of_their_own(service):
    batch = {"documents": [{"source": "a.md", "text": "x" * 100_000}]}
    assert (await service.client.post("/knowledge/documents", json=batch)).status_code == 200
    batch["documents"][0]["text"] = "x" * 17_000_000
    _assert_too_large(await service.client.post("/knowledge/documents", json=batch), 16 * 1024 * 1024)


async def test_a_client_that_waits_for_permission_is_refused_before_it_sends(service):
    request = b"POST /agent/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\nExpect: 100-continue\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(request)
    assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_goes_on_sending_for_ever_is_cut_off(service, monkeypatch):
    monkeypatch.setattr(body_limits, "LINGER_S", 0.2)
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"POST /agent/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n")

    async def send_for_ever() -> None:
        while True:
            writer.write(b"x" * 1000)
            await writer.drain()
            await asyncio.sleep(0.01)

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(send_for_ever(), 5)
    writer.close()


async def test_a_body_that_does_not_arrive_is_given_up(service, monkeypatch):
    monkeypatch.setattr(body_limits, "BODY_TIMEOUT_S", 0.1)
    monkeypatch.setattr(body_limits, "LINGER_S", 0.1)
    answer = await service.raw(b"POST /agent/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"body_timeout" in answer


async def test_a_client_that_leaves_within_its_body_leaves_no_trace(service, caplog):
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(
        b"POST /agent/chat HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    )
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.close()
    await asyncio.sleep(0.2)
    assert caplog.records == []
    assert (await service.client.get("/healthz")).status_code == 200
