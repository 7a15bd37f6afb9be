"""The OpenAPI document is true, for every request that it allows and for those that it forbids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import schemathesis
from described import ROOMY, Described, served
from http_service import Service, empty
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

if TYPE_CHECKING:
    from collections.abc import Iterator

DESCRIBED = Service().api.openapi()
OPERATIONS = [(method, path) for path, operations in DESCRIBED["paths"].items() for method in operations]
WITH_INPUT = [
    (method, path) for method, path in OPERATIONS if {"parameters", "requestBody"} & {*DESCRIBED["paths"][path][method]}
]


@pytest.fixture(scope="module")
def service(api_redis_url: str) -> Iterator[Described]:
    with served(Described(empty(api_redis_url), settings=ROOMY), {}) as service:
        yield service


def _try(service: Described, operation: tuple[str, str], mode: GenerationMode) -> None:
    method, path = operation
    cases = schemathesis.openapi.from_dict(DESCRIBED)[path][method].as_strategy(generation_mode=mode)

    @given(case=cases)
    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def try_one(case):
        service.forget_idempotency_keys()  # or a key comes with two bodies
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
