"""The service obeys the Cache-Control header of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from serve_app.http.request_context import parse_cache_control

if TYPE_CHECKING:
    from http_service import Service

DIRECTIVES = [
    ([], ""),
    (["max-age=3600, must-revalidate"], ""),
    (["no-cache"], "no-cache"),
    (["max-age=0"], "no-cache"),
    (["Max-Age=60 , NO-CACHE"], "no-cache"),
    (["no-cache", "no-store"], "no-store"),
    (["no-store,no-cache"], "no-store"),
    (["x-no-cache, no-cached"], ""),
]


@pytest.mark.parametrize(("values", "use"), DIRECTIVES)
def test_the_header_is_read_in_any_number_of_lines_and_the_strictest_counts(values: list[str], use: str) -> None:
    assert parse_cache_control(values) == use


@pytest.mark.parametrize(("values", "use"), DIRECTIVES)
async def test_the_agent_is_told(service: Service, values: list[str], use: str) -> None:
    body = {"user_input": "hello", "session_id": "s"}
    headers = [("Cache-Control", value) for value in values]
    response = await service.client.post("/agent/chat", json=body, headers=headers)
    assert (response.status_code, response.json()["cached"]) == (200, False)
    assert service.agent.received[-1][0].cache == use
