"""Nothing of one tenant reaches another one, by whichever route and identifier."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from http_service import Service
from whole_service import Whole, whole_service

from serve_app.config import AccessSettings
from serve_app.http.auth import OPERATOR_PATHS, PUBLIC_PATHS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

SECRET = "The vault of Acme opens with the phrase xylophone at midnight."
QUESTION = "Search the manual: which phrase opens the vault of Acme?"
SOURCE, SESSION, KEY, REQUEST = "acme-vault.md", "acme-session", "acme-key-1", "acme-request-1"
CHAT = {"user_input": QUESTION, "session_id": SESSION}
Route = tuple[str, str]
OF_NOBODY: list[Route] = [("get", "/v1/models"), ("get", "/v1/models/{model}")]
"""What they tell is the same for all."""


@dataclass(frozen=True)
class Owned:
    """What acme has, and how each tenant is let in."""

    service: Whole
    acme: dict[str, str]
    globex: dict[str, str]
    run_id: str
    document_id: str

    async def ask(self, who: dict[str, str], method: str, path: str, **given: Any) -> Any:
        headers = {**who, **given.pop("headers", {})}
        return await self.service.client.request(method, path, headers=headers, **given)


NAMED: dict[Route, dict[str, Any]] = {
    ("get", "/agent/runs/{run_id}"): {},
    ("get", "/agent/runs/{run_id}/events"): {"headers": {"Last-Event-ID": "0"}},
    ("post", "/agent/runs/{run_id}/cancel"): {},
    ("post", "/agent/feedback"): {"json": {"run_id": "RUN_ID", "rating": "up"}},
    ("get", "/admin/runs/{run_id}/logs"): {},
    ("get", "/admin/requests/{request_id}/logs"): {},
    ("get", "/agent/sessions/{session_id}"): {},
    ("delete", "/knowledge/documents/{document_id}"): {},
    ("delete", "/agent/sessions/{session_id}"): {},
}
"""The routes that take an identifier, with what they are sent; what ends the thing comes last."""
LISTS: list[Route] = [("get", "/admin/feedback"), ("get", "/admin/sessions"), ("get", "/knowledge/documents")]
OF_THE_SAME_NAME: list[Route] = [
    ("post", "/agent/chat"),
    ("post", "/v1/chat/completions"),
    ("post", "/knowledge/documents"),
]
"""Where a client chooses the name: each tenant has a thing of its own by it."""


@pytest.fixture(scope="module")
def described() -> list[Route]:
    service = Service(access=AccessSettings())
    return [(method, path) for path, each in service.api.openapi()["paths"].items() for method in each]


@pytest.fixture
async def owned(redis: Redis, redis_url: str, milvus_url: str) -> AsyncIterator[Owned]:
    async with whole_service(redis, redis_url, milvus_url) as service:
        acme, globex = await service.key_of("acme"), await service.key_of("globex")
        batch = {"documents": [{"source": SOURCE, "text": f"# The vault\n\n{SECRET}"}]}
        added = await service.client.post("/knowledge/documents", json=batch, headers=acme)
        [document] = added.json()["documents"]
        first = {**acme, "Idempotency-Key": KEY, "X-Request-Id": REQUEST}
        response = await service.client.post("/agent/chat", json=CHAT, headers=first)
        assert (document["status"], response.status_code) == ("added", 200), response.text
        owned = Owned(service, acme, globex, response.json()["run_id"], document["id"])
        vote = {"run_id": owned.run_id, "rating": "down", "comment": "acme's comment"}
        assert (await owned.ask(acme, "post", "/agent/feedback", json=vote)).status_code == 200
        async with asyncio.timeout(5):
            while (await owned.ask(acme, "get", f"/admin/requests/{REQUEST}/logs")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield owned


def filled(owned: Owned, route: Route, **other: str) -> tuple[str, str, dict[str, Any]]:
    """The route with acme's identifiers, or with others."""
    ids = {"run_id": owned.run_id, "document_id": owned.document_id, "session_id": SESSION}
    ids = {**ids, "request_id": REQUEST, **other}
    method, path = route
    given = {**NAMED[route]}
    if "json" in given:
        given["json"] = {**given["json"], "run_id": ids["run_id"]}
    return method, path.format(**ids), given


def test_every_route_is_tried_or_has_nothing_of_a_tenant(described: list[Route]) -> None:
    tried = {*NAMED, *LISTS, *OF_THE_SAME_NAME, *OF_NOBODY}
    rest = {route for route in described if route not in tried}
    assert tried <= {*described}
    untried = {path for _, path in rest if path not in PUBLIC_PATHS and not path.startswith(OPERATOR_PATHS)}
    assert untried == set(), "a new route needs its place in this test"


async def test_no_identifier_of_another_tenant_is_known_whoever_shows_it(owned: Owned) -> None:
    for route in NAMED:
        method, path, given = filled(owned, route)
        guessed = await owned.ask(owned.globex, method, path, **given)
        nowhere = {"run_id": "0" * 32, "document_id": "0" * 32, "session_id": "nowhere", "request_id": "nothing"}
        _, path_of_nothing, of_nothing = filled(owned, route, **nowhere)
        unknown = await owned.ask(owned.globex, method, path_of_nothing, **of_nothing)
        assert (guessed.status_code, unknown.status_code) == (404, 404), route
        seen, expected = guessed.json()["error"], unknown.json()["error"]
        for name in ("run_id", "document_id", "session_id"):
            if f"{{{name}}}" in route[1]:
                expected["message"] = expected["message"].replace(nowhere[name], path.split("/")[3])
        assert seen["message"].replace(owned.run_id, "0" * 32) == expected["message"].replace(owned.run_id, "0" * 32)
    for route in NAMED:  # nothing has changed: the owner finds it all
        method, path, given = filled(owned, route)
        mine = await owned.ask(owned.acme, method, path, **given)
        assert mine.status_code in {200, 204}, (route, mine.text)


async def test_lists_show_nothing_of_another_tenant(owned: Owned) -> None:
    for method, path in LISTS:
        theirs, mine = [await owned.ask(who, method, path) for who in (owned.globex, owned.acme)]
        assert (theirs.status_code, mine.status_code) == (200, 200)
        assert any(each in mine.text for each in (owned.run_id, SESSION, SOURCE)), path
        for each in (owned.run_id, owned.document_id, SESSION, SOURCE, "acme", "xylophone"):
            assert each not in theirs.text, path
        counts = [value for value in theirs.json().values() if type(value) is int]
        assert counts, path
        assert set(counts) == {0}, path


async def test_the_same_names_are_other_things_to_another_tenant(owned: Owned) -> None:
    headers = {"Idempotency-Key": KEY}
    for body in (CHAT, {**CHAT, "user_input": "hello"}):
        response = await owned.ask(owned.globex, "post", "/agent/chat", json=body, headers=headers)
        assert response.json().get("run_id") != owned.run_id
        assert response.status_code == (200 if body == CHAT else 422)  # its own key with another body
    theirs = await owned.ask(owned.globex, "get", f"/agent/sessions/{SESSION}")
    assert (theirs.json()["turns"], "xylophone" in theirs.text) == (1, False)
    assert (await owned.ask(owned.acme, "get", f"/agent/sessions/{SESSION}")).json()["turns"] == 1
    batch = {"documents": [{"source": SOURCE, "text": "# Ours\n\nThe garage of Globex is opened by a whistle."}]}
    [added] = (await owned.ask(owned.globex, "post", "/knowledge/documents", json=batch)).json()["documents"]
    assert added["status"] == "added"
    assert added["id"] != owned.document_id
    again = await owned.ask(owned.acme, "post", "/agent/chat", json={**CHAT, "session_id": "again"})
    assert "xylophone" in again.text


async def test_the_same_session_in_openais_language_is_another_one_to_another_tenant(owned: Owned) -> None:
    for named in ({"user": SESSION}, {"metadata": {"session_id": SESSION}}):
        body = {"model": "serve_app", "messages": [{"role": "user", "content": "What did I ask first?"}], **named}
        theirs = await owned.ask(owned.globex, "post", "/v1/chat/completions", json=body)
        assert theirs.status_code == 200
        assert not any(word in theirs.text for word in ("vault", "xylophone", owned.run_id, SOURCE))
    body = {"model": "serve_app", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"Idempotency-Key": KEY}
    response = await owned.ask(owned.globex, "post", "/v1/chat/completions", json=body, headers=headers)
    assert owned.run_id not in response.text
    assert (await owned.ask(owned.acme, "get", f"/agent/sessions/{SESSION}")).json()["turns"] == 1
    assert (await owned.ask({}, "get", "/v1/models")).status_code == 401


async def test_a_passage_of_another_tenant_is_never_found(owned: Owned) -> None:
    mine = (await owned.ask(owned.acme, "post", "/agent/chat", json={**CHAT, "session_id": "mine"})).json()
    assert [citation["source"] for citation in mine["citations"]] == [SOURCE]
    text = "# The vault\n\nThe vault of Globex, not of Acme, opens with the phrase kazoo at noon."
    batch = {"documents": [{"source": "globex-vault.md", "text": text}]}
    await owned.ask(owned.globex, "post", "/knowledge/documents", json=batch)
    for stream in (False, True):
        json_body = {**CHAT, "session_id": f"theirs-{stream}", "stream": stream}
        theirs = await owned.ask(owned.globex, "post", "/agent/chat", json=json_body)
        assert theirs.status_code == 200
        assert "globex-vault.md" in theirs.text
        assert "xylophone" not in theirs.text
        assert SOURCE not in theirs.text


async def test_a_run_that_goes_on_is_neither_followed_nor_cancelled_by_another_tenant(owned: Owned) -> None:
    wants = {"Prefer": "respond-async"}
    begun = await owned.ask(owned.acme, "post", "/agent/chat", json={**CHAT, "session_id": "b"}, headers=wants)
    path = f"/agent/runs/{begun.json()['run_id']}"
    for method, of_run in (("get", "/events"), ("post", "/cancel"), ("get", "")):
        assert (await owned.ask(owned.globex, method, path + of_run)).status_code == 404
    await owned.ask(owned.acme, "get", f"{path}/events")
    assert (await owned.ask(owned.acme, "get", path)).json()["status"] == "success"


async def test_what_is_open_to_all_tells_of_no_tenant(owned: Owned) -> None:
    for path in PUBLIC_PATHS:
        seen = (await owned.ask({}, "get", path)).text
        for each in (owned.run_id, owned.document_id, SESSION, SOURCE, "xylophone"):
            assert each not in seen


async def test_only_the_operators_tenant_manages_keys_tenants_and_faults(owned: Owned, described: list[Route]) -> None:
    managing = [(method, path) for method, path in described if path.startswith(OPERATOR_PATHS)]
    assert len(managing) == 9
    for method, path in managing:
        given = {"json": {}} if method in {"post", "put", "patch"} else {}
        for tenant, expected in (("acme", {403}), ("globex", {403}), ("default", {200, 404, 422})):
            who = {"acme": owned.acme, "globex": owned.globex}.get(tenant) or await owned.service.key_of(tenant)
            filled_in = path.format(key_id="0" * 16, tenant="a")
            assert (await owned.ask(who, method, filled_in, **given)).status_code in expected, (method, path)


async def test_a_key_that_is_revoked_opens_nothing_of_its_tenant_any_longer(owned: Owned) -> None:
    [key] = [key for key in await owned.service.keys.list_keys() if key.tenant == "acme"]
    async with asyncio.timeout(2):
        await owned.service.keys.revoke(key.id)
        assert (await owned.ask(owned.acme, "get", f"/agent/runs/{owned.run_id}")).status_code == 401
    owner = await owned.service.key_of("acme")
    assert (await owned.ask(owner, "get", f"/agent/runs/{owned.run_id}")).status_code == 200
