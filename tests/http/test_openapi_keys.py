"""The OpenAPI document is true where keys are required."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from described import ROOMY, Described, served
from http_service import NO_REDIS, empty
from hypothesis import HealthCheck, given, settings
from pydantic import SecretStr
from schemathesis import GenerationMode

from serve_app.config import AccessSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

OPERATORS = "operators-key-of-thirty-two-characters"
SHOWN = {"Authorization": f"Bearer {OPERATORS}"}


def _guarded(redis_url: str = NO_REDIS) -> Described:
    access = AccessSettings(failures_burst=1_000_000)
    return Described(redis_url, settings=ROOMY, access=access, operator_key=SecretStr(OPERATORS))


DESCRIBED: dict[str, Any] = _guarded().api.openapi()
UNKEYED = {
    **DESCRIBED,
    "components": {name: each for name, each in DESCRIBED["components"].items() if name != "securitySchemes"},
    "paths": {
        path: {method: {**operation, "security": []} for method, operation in operations.items()}
        for path, operations in DESCRIBED["paths"].items()
    },
}
"""What requests are made from: which key they show is for the test to say."""
OPERATIONS = [(method, path) for path, operations in DESCRIBED["paths"].items() for method in operations]


@pytest.fixture(scope="module")
def service(api_redis_url: str) -> Iterator[Described]:
    with served(_guarded(empty(api_redis_url)), SHOWN) as service:
        yield service


TRIED = [
    *((operation, GenerationMode.POSITIVE) for operation in OPERATIONS),
    *(
        (each, GenerationMode.NEGATIVE)
        for each in OPERATIONS
        if {"parameters", "requestBody"} & {*UNKEYED["paths"][each[1]][each[0]]}
    ),
]


@pytest.mark.parametrize(("operation", "mode"), TRIED, ids=str)
def test_with_a_key_it_answers_as_described_and_without_one_not_at_all(service, operation, mode):
    method, path = operation
    guarded = bool(DESCRIBED["paths"][path][method]["security"])
    cases = schemathesis.openapi.from_dict(UNKEYED)[path][method].as_strategy(generation_mode=mode)

    @given(case=cases)
    @settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def try_one(case):
        service.forget_idempotency_keys()
        if guarded:
            for headers in ({}, {"Authorization": "Bearer sa_0000000000000000_wrong"}):
                refused = case.call(base_url=service.url, timeout=10, headers=headers)
                assert refused.status_code == 401, refused.text
                assert refused.headers["www-authenticate"] == ["Bearer"]
        answered = case.call(base_url=service.url, timeout=10, headers=SHOWN)
        assert answered.status_code not in {401, 403}
        assert answered.status_code < 500
        if mode is GenerationMode.POSITIVE:
            case.validate_response(answered, headers=SHOWN)

    try_one()
