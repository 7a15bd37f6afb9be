"""Keys open the routes of their scopes, and everybody else is refused."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from http_service import Service, empty, running

from serve_app.config import AccessSettings
from serve_app.http.auth import PUBLIC_PATHS, SCOPES, scope_of
from serve_app.observability.metric_catalogue import RESPONSES
from serve_app.resilience.gcra import GcraLimit, LocalRateLimiter
from serve_app.values import ApiKeyRequest, NewApiKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CHAT = {"user_input": "hello", "session_id": "s1"}
WRONG = "sa_00000000000000ff_" + "w" * 43


def keyed(redis_url: str, **settings: Any) -> Service:
    return Service(empty(redis_url), access=AccessSettings(**settings))


@pytest.fixture
async def guarded(api_redis_url: str) -> AsyncIterator[Service]:
    async with running(keyed(api_redis_url)) as service:
        yield service


async def key_of(service: Service, *scopes: Any, tenant: str = "acme") -> dict[str, str]:
    """The header of a new key."""
    made = await service.keys.create(ApiKeyRequest(tenant=tenant, scopes=frozenset(scopes)))
    return {"Authorization": f"Bearer {made.key}"}


def status_and_code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize("path", [*sorted(PUBLIC_PATHS)])
async def test_load_balancers_prometheus_and_readers_need_no_key(guarded: Service, path: str) -> None:
    assert (await guarded.client.get(path)).status_code == 200


UNKNOWN_KEYS = [
    [],
    [("Authorization", "")],
    [("Authorization", "Bearer")],
    [("Authorization", f"Bearer {WRONG}")],
    [("Authorization", WRONG)],
    [("Authorization", f"Basic {WRONG}")],
    [("Authorization", "Bearer \xff")],
    [("Authorization", "Bearer " + "x" * 10_000)],
]


@pytest.mark.parametrize("path", ["/agent/chat", "/knowledge/documents", "/admin/keys", "/v1/models", "/nowhere", "/"])
async def test_without_a_known_key_everything_is_a_401_whether_it_exists_or_not(guarded, path) -> None:
    for given in UNKNOWN_KEYS:
        headers = [(name, value.encode("latin-1")) for name, value in given]
        response = await guarded.client.post(path, json=CHAT, headers=headers)
        case = str(given)[:60]
        assert status_and_code(response) == (401, "unauthenticated"), case
        assert response.headers["WWW-Authenticate"] == "Bearer", case
        error, request_id = response.json()["error"], response.headers["X-Request-Id"]
        # OpenAI's errors have no request id
        assert ("type" if path.startswith("/v1/") else "request_id") in error, case
        assert error.get("request_id", request_id) == request_id, case
    assert guarded.agent.calls == 0


async def test_a_key_that_came_twice_is_none(guarded: Service) -> None:
    good = await key_of(guarded, "chat")
    twice = [("Authorization", good["Authorization"]), ("Authorization", f"Bearer {WRONG}")]
    for headers in (twice, twice[::-1]):
        assert status_and_code(await guarded.client.post("/agent/chat", json=CHAT, headers=headers))[0] == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
async def test_a_known_key_is_let_in_and_the_request_is_its_tenants(
    guarded: Service, captured_logs, scheme: str
) -> None:
    key = (await key_of(guarded, "chat"))["Authorization"].removeprefix("Bearer ")
    response = await guarded.client.post("/agent/chat", json=CHAT, headers={"Authorization": f"{scheme} {key}"})
    assert response.status_code == 200
    [(context, _)] = guarded.agent.received
    assert (context.tenant, context.key_id) == ("acme", key.split("_")[1])
    assert {(line["tenant"], line["key_id"]) for line in captured_logs.of("turn_received")} == {
        ("acme", context.key_id)
    }
    assert key not in str(captured_logs.lines)


@pytest.mark.parametrize("path", ["/agent/sessions/s", "/v1/models", "/knowledge/documents", "/admin/feedback"])
@pytest.mark.parametrize("scope", ["chat", "knowledge", "admin"])
async def test_a_key_opens_what_its_scopes_say_and_nothing_else(guarded: Service, path: str, scope: str) -> None:
    response = await guarded.client.get(path, headers=await key_of(guarded, scope))
    if SCOPES[path.split("/")[1]] == scope:
        assert response.status_code in {200, 404}
    else:
        assert status_and_code(response) == (403, "forbidden")
        assert scope_of(path) in response.json()["error"]["message"]


async def test_every_route_asks_for_a_scope_or_is_open_to_all(guarded: Service) -> None:
    document = (await guarded.client.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"]["Key"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for operation in operations.values():
            expected = [] if path in PUBLIC_PATHS else [{"Key": [scope_of(path)]}]
            assert operation["security"] == expected, path
            assert path in PUBLIC_PATHS or scope_of(path)
            assert path in PUBLIC_PATHS or {"401", "403", "429"} <= set(operation["responses"])


async def test_without_keys_the_documentation_asks_for_none(service: Service) -> None:
    document = (await service.client.get("/openapi.json")).json()
    assert "securitySchemes" not in document["components"]
    assert not any("security" in operation for each in document["paths"].values() for operation in each.values())
    assert status_and_code(await service.client.get("/admin/keys")) == (404, "not_found")
    assert (await service.client.put("/admin/tenants/default", json={"weight": 2})).status_code == 200


@pytest.mark.parametrize("path", ["/admin/keys", "/admin/tenants", "/admin/faults"])
async def test_what_concerns_all_tenants_is_the_operators(guarded: Service, path: str) -> None:
    assert status_and_code(await guarded.client.get(path, headers=await key_of(guarded, "admin"))) == (403, "forbidden")
    operators = await key_of(guarded, "admin", tenant="default")
    assert (await guarded.client.get(path, headers=operators)).status_code == 200


async def test_a_refusal_does_not_wait_for_the_body_and_is_counted(guarded: Service) -> None:
    head = b"POST /knowledge/documents HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 16000000\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", guarded.port)
    writer.write(head)
    begun = time.monotonic()
    assert (await reader.readline()).startswith(b"HTTP/1.1 401")
    assert time.monotonic() - begun < 1
    writer.close()
    await writer.wait_closed()
    for _ in range(500):
        if not guarded.metrics.of(RESPONSES):
            await asyncio.sleep(0.01)
    labels = (("route", "/knowledge/documents"), ("status", "401"), ("code", "unauthenticated"))
    assert guarded.metrics.of(RESPONSES) == {labels: 1}


async def test_a_service_that_has_not_heard_of_its_keys_yet_asks_to_come_back() -> None:
    async with running(Service(access=AccessSettings())) as service:
        response = await service.client.get("/agent/runs/r", headers={"Authorization": f"Bearer {WRONG}"})
        assert status_and_code(response) == (503, "store_unavailable")
        assert response.headers["Retry-After"] == "1"
        assert response.json()["error"]["retryable"]
        assert status_and_code(await service.client.get("/agent/runs/r"))[0] == 401


async def test_wrong_keys_are_limited_by_address_and_a_right_one_passes_all_the_same(
    api_redis_url: str, captured_logs
) -> None:
    async with running(keyed(api_redis_url, failures_per_minute=1, failures_burst=3)) as service:
        wrong, good = {"Authorization": f"Bearer {WRONG}"}, await key_of(service, "chat")
        tried = [await service.client.get("/agent/runs/r", headers=wrong) for _ in range(5)]
        assert [response.status_code for response in tried] == [401, 401, 401, 429, 429]
        assert status_and_code(tried[-1]) == (429, "too_many_failures")
        assert 50 < int(tried[-1].headers["Retry-After"]) <= 60
        assert (await service.client.get("/agent/runs/r", headers=good)).status_code == 404
        assert (await service.client.get("/agent/runs/r")).status_code == 401
    assert [line["address"] for line in captured_logs.of("key_refused")] == ["127.0.0.1"] * 3


async def test_behind_a_proxy_that_is_trusted_each_client_has_tries_of_its_own(api_redis_url: str) -> None:
    async with running(keyed(api_redis_url, failures_burst=1, trusted_proxies=("127.0.0.1",))) as service:
        for client, expected in (("192.0.2.1", 401), ("192.0.2.1", 429), ("192.0.2.2", 401)):
            headers = {"Authorization": f"Bearer {WRONG}", "X-Forwarded-For": f"203.0.113.9, {client}"}
            assert (await service.client.get("/agent/runs/r", headers=headers)).status_code == expected


def test_an_address_pays_its_tries_back_with_time_and_few_are_remembered() -> None:
    now = [0.0]
    limiter = LocalRateLimiter(GcraLimit(6, 2), 20, lambda: now[0])
    assert [limiter.take("a") for _ in range(3)] == [0, 0, pytest.approx(10)]
    assert limiter.take("b") == 0
    now[0] = 10
    assert [limiter.take("a") for _ in range(2)] == [0, pytest.approx(10)]
    for n in range(25):
        limiter.take(str(n))
    assert len(limiter._used_until_us) == 20


async def made(service: Service, operators: dict[str, str], **order: Any) -> Any:
    order = {"tenant": "acme", "scopes": ["chat"], **order}
    return await service.client.post("/admin/keys", json=order, headers=operators)


async def test_a_key_is_told_once_and_to_no_cache(guarded: Service, captured_logs) -> None:
    operators = await key_of(guarded, "admin", tenant="default")
    response = await made(guarded, operators, name="the shop", limits={"turns_per_minute": 5})
    assert response.status_code == 201
    assert response.headers["Cache-Control"] == "no-store"
    new = NewApiKey.model_validate_json(response.content)
    listed = (await guarded.client.get("/admin/keys", headers=operators)).json()["keys"]
    assert listed[-1] == json.loads(new.model_dump_json(exclude={"key"}))
    assert new.key not in str(captured_logs.lines)
    assert [line["of"] for line in captured_logs.of("key_created")] == ["acme"]


async def test_limits_of_a_key_are_changed_one_by_one_and_a_key_is_ended(guarded: Service) -> None:
    operators = await key_of(guarded, "admin", tenant="default")
    path = f"/admin/keys/{(await made(guarded, operators, limits={'turns_burst': 2})).json()['id']}"
    changed = await guarded.client.patch(path, json={"turns_per_minute": 9}, headers=operators)
    assert changed.json()["limits"] == {
        "turns_per_minute": 9.0,
        "turns_burst": 2,
        "tokens_per_minute": None,
        "tokens_burst": None,
    }
    changed = await guarded.client.patch(path, json={"turns_burst": None}, headers=operators)
    assert changed.json()["limits"]["turns_burst"] is None
    for expected in (204, 404):
        assert (await guarded.client.delete(path, headers=operators)).status_code == expected
    assert (await guarded.client.patch(path, json={}, headers=operators)).status_code == 404


async def test_tenants_are_limited_and_listed(guarded: Service) -> None:
    operators = await key_of(guarded, "admin", tenant="default")
    entry = {"limits": {"tokens_per_minute": 1000}, "weight": 2.5}
    response = await guarded.client.put("/admin/tenants/acme", json=entry, headers=operators)
    assert (response.status_code, response.json()["weight"]) == (200, 2.5)
    listed = (await guarded.client.get("/admin/tenants", headers=operators)).json()["tenants"]
    assert [(each["tenant"], each["limits"]["tokens_per_minute"]) for each in listed] == [("acme", 1000)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tenant", "a b"),
        ("scopes", []),
        ("scopes", ["root"]),
        ("scopes", ["chat", "chat"]),
        ("limits", {"turns_per_minute": 0}),
        ("limits", {"turns_burst": True}),
        ("name", "x" * 201),
        ("secret", "mine"),
    ],
)
async def test_an_order_that_cannot_be_is_a_422_that_names_the_field(guarded: Service, field: str, value: Any) -> None:
    operators = await key_of(guarded, "admin", tenant="default")
    response = await made(guarded, operators, **{field: value})
    assert response.status_code == 422
    assert field in response.json()["error"]["message"]
