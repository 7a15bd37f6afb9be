"""Every response has the security headers, only listed origins may call, and headers have a limit."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from http_service import Service, running

from serve_app.config import HttpSettings
from serve_app.http.middleware.headers import SecurityHeadersMiddleware

if TYPE_CHECKING:
    import httpx

TURN = {"user_input": "hello", "session_id": "s1"}
DESK = "https://desk.example"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type, x-stainless-lang, x-stainless-retry-count",
}


def _assert_safe(response: httpx.Response) -> None:
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    assert response.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in response.headers
    assert "strict-transport-security" not in response.headers


async def test_answers_streams_and_refusals_are_safe(service: Service) -> None:
    client = service.client
    _assert_safe(await client.post("/agent/chat", json=TURN))
    _assert_safe(await client.post("/agent/chat", json={**TURN, "stream": True}))
    _assert_safe(await client.post("/agent/chat", content=b"x" * 10_000))
    _assert_safe(await client.get("/nowhere", headers={"Origin": DESK}))
    service.agent.script = [ValueError("a secret")]
    _assert_safe(await client.post("/agent/chat", json=TURN))


async def test_the_page_of_the_documentation_may_load_what_it_needs_and_nothing_else(service: Service) -> None:
    page = await service.client.get("/docs")
    policy = dict(each.strip().split(" ", 1) for each in page.headers["content-security-policy"].split(";"))
    scripts = re.findall(r'<script src="(https://[^/]+)', page.text)
    styles = re.findall(r'<link [^>]*rel="stylesheet" href="(https://[^/]+)', page.text)
    icons = re.findall(r'rel="shortcut icon" href="(https://[^/]+)', page.text)
    assert scripts
    assert styles
    assert set(scripts) <= set(policy["script-src"].split())
    assert set(styles) <= set(policy["style-src"].split())
    assert set(icons) <= set(policy["img-src"].split())
    assert "'unsafe-inline'" in policy["script-src"]
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert (
        (await service.client.get("/openapi.json")).headers["content-security-policy"].startswith("default-src 'none'")
    )


async def test_a_listed_origin_may_call_and_sees_the_headers_it_needs() -> None:
    async with running(Service(settings=HttpSettings(cors_origins=(DESK,)))) as service:
        allowed = await service.client.options("/agent/chat", headers={"Origin": DESK, **PREFLIGHT})
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == DESK
        answered = await service.client.post("/agent/chat", json=TURN, headers={"Origin": DESK})
        assert answered.headers["access-control-allow-origin"] == DESK
        assert "X-Request-Id" in answered.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answered.headers
        refused = await service.client.get("/nowhere", headers={"Origin": DESK})
        assert refused.headers["access-control-allow-origin"] == DESK


@pytest.mark.parametrize("origin", ["https://evil.example", "https://desk.example.evil.example", "null"])
async def test_another_origin_is_refused_with_the_error_body(origin: str) -> None:
    async with running(Service(settings=HttpSettings(cors_origins=(DESK,)))) as service:
        refused = await service.client.options("/agent/chat", headers={"Origin": origin, **PREFLIGHT})
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "origin_refused"
        assert refused.json()["error"]["request_id"] == refused.headers["x-request-id"]
        assert "access-control-allow-origin" not in refused.headers
        answered = await service.client.post("/agent/chat", json=TURN, headers={"Origin": origin})
        assert "access-control-allow-origin" not in answered.headers


@pytest.mark.parametrize("origin", ["*", "https://*.example", "desk.example", "https://desk.example/app", "null"])
def test_only_an_origin_can_be_listed(origin: str) -> None:
    with pytest.raises(ValueError, match="not an origin"):
        HttpSettings(cors_origins=(origin,))


async def test_the_headers_cost_microseconds() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"a")]})

    async def send(message: Any) -> None:
        assert message["type"] == "http.response.start"

    async def each_us(app: Any) -> float:
        begun = time.process_time()
        for _ in range(5000):
            await app({"type": "http", "path": "/agent/chat"}, None, send)
        return (time.process_time() - begun) / 5000 * 1e6

    cost_us = await each_us(SecurityHeadersMiddleware(app)) - await each_us(app)
    print(f"safe headers cost {cost_us:.1f} µs")
    assert cost_us < 50


def _request_with(headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\n{lines}\r\n".encode()


def _is_refused(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"x-request-id: mine" in head.lower()
    return answer.startswith(b"HTTP/1.1 431") and b'"headers_too_large"' in body and b'"request_id":"mine"' in body


@pytest.mark.parametrize(
    "headers",
    [{f"X-{number}": "1" for number in range(99)}, {"X-Long": "x" * 17_000}, {f"X-{n}": "1" for n in range(10_000)}],
    ids=["101 headers", "17 kB", "10,000 headers"],
)
async def test_headers_over_the_limit_are_refused_with_the_error_body(
    service: Service, headers: dict[str, str]
) -> None:
    assert _is_refused(await service.raw(_request_with(headers)))


async def test_headers_at_the_limit_are_taken(service: Service) -> None:
    headers = {f"X-{number}": "1" for number in range(97)}
    assert (await service.raw(_request_with({**headers, "Connection": "close"}))).startswith(b"HTTP/1.1 200")
    headers = {"X-Long": "x" * 16_000, "Connection": "close"}
    assert (await service.raw(_request_with(headers))).startswith(b"HTTP/1.1 200")
