"""Too many or too long headers are refused with the error body."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from http_service import Service


def _with(headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\n{lines}\r\n".encode()


def _refused(answer: bytes) -> bool:
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
    assert _refused(await service.raw(_with(headers)))


async def test_headers_at_the_limit_are_taken(service: Service) -> None:
    headers = {f"X-{number}": "1" for number in range(97)}
    assert (await service.raw(_with({**headers, "Connection": "close"}))).startswith(b"HTTP/1.1 200")
    headers = {"X-Long": "x" * 16_000, "Connection": "close"}
    assert (await service.raw(_with(headers))).startswith(b"HTTP/1.1 200")
