"""Is the documentation true, for every request that can be made from it and for those that it forbids?"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import httpx
import pytest
import schemathesis
from http_service import Service, running
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from serve_app.config import HttpSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

DESCRIBED = Service().api.openapi()
OPERATIONS = [(method, path) for path, operations in DESCRIBED["paths"].items() for method in operations]
WITH_INPUT = [
    (method, path) for method, path in OPERATIONS if {"parameters", "requestBody"} & {*DESCRIBED["paths"][path][method]}
]


class Described(Service):
    """A service at `url` that has run `run_id`."""

    url = ""
    run_id = ""


@pytest.fixture(scope="module")
def service() -> Iterator[Described]:
    """A service that runs in a thread of its own, because its client here is synchronous."""
    ready, stop = threading.Event(), threading.Event()
    service = Described(
        settings=HttpSettings(max_chat_body_bytes=2**20)
    )  # or long inputs are 413, which counts as accepted

    async def serve() -> None:
        async with running(service):
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    assert ready.wait(10)
    service.url = f"http://127.0.0.1:{service.port}"
    said = httpx.post(f"{service.url}/agent/chat", json={"user_input": "hello", "session_id": "s1"}, timeout=10)
    service.run_id = said.json()["run_id"]
    yield service
    stop.set()
    thread.join(10)


def _try(service: Described, operation: tuple[str, str], mode: GenerationMode) -> None:
    method, path = operation
    cases = schemathesis.openapi.from_dict(DESCRIBED)[path][method].as_strategy(generation_mode=mode)

    @given(case=cases)
    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def try_one(case):
        service.runs.keys.clear()  # or a key comes with two bodies
        if mode is GenerationMode.POSITIVE and "run_id" in (case.path_parameters or {}):
            case.path_parameters["run_id"] = service.run_id
        case.call_and_validate(base_url=service.url, timeout=10)

    try_one()


@pytest.mark.parametrize("operation", OPERATIONS, ids=" ".join)
def test_what_is_described_is_answered_as_described(service, operation):
    _try(service, operation, GenerationMode.POSITIVE)


@pytest.mark.parametrize("operation", WITH_INPUT, ids=" ".join)
def test_what_is_not_described_is_refused_as_described(service, operation):
    _try(service, operation, GenerationMode.NEGATIVE)
