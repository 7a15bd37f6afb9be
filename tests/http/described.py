"""Serves the API in a thread of its own, for clients that are synchronous."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import redis
from http_service import Service, in_thread

from serve_app.config import HttpSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOMY = HttpSettings(max_chat_body_bytes=2**20)
"""Or long inputs are 413, which counts as accepted."""


class Described(Service):
    """A service at `url` that has run `run_id`."""

    url = ""
    run_id = ""

    def forget_idempotency_keys(self) -> None:
        with redis.Redis.from_url(self.redis_url) as client:
            for key in client.scan_iter("serve_app:key:*"):
                client.delete(key)


@contextmanager
def served(service: Described, headers: dict[str, str]) -> Iterator[Described]:
    """The service, asked with these headers for the run that it has."""
    with in_thread(service) as service.url:
        json_body = {"user_input": "hello", "session_id": "s1"}
        response = httpx.post(f"{service.url}/agent/chat", json=json_body, headers=headers, timeout=10)
        service.run_id = response.json()["run_id"]
        yield service
